"""What is told of the methods before one is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta.config.__main__ import main
from raymeta.config.catalogue import ALIASES, CATALOGUE, candidates
from raymeta.config.describe import section_options
from raymeta.config.variants import registry, variant_class
from raymeta.errors import ConfigError

DOCS = Path(raymeta.__file__).parent.parent / "docs" / "algorithms.md"


def test_every_method_has_its_entry() -> None:
    assert {*CATALOGUE, *ALIASES} == set(registry("algorithm"))


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_what_it_says_of_goals_is_what_the_class_does(name: str) -> None:
    cls: Any = variant_class("algorithm", name)
    entry = CATALOGUE[name]
    if {"classification", "regression"} & set(entry.goals):
        assert set(entry.goals) == set(cls.goals)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_options_that_it_names_are_there(name: str) -> None:
    own = {option.key.partition(".")[2] for option in section_options("algorithm", name).values()}
    for word in CATALOGUE[name].set_first.replace("(", " ").split(","):
        first = word.split()[0] if word.split() else ""
        assert "_" not in first or "." in first or first in own, first


def test_candidates_meet_all_that_is_asked() -> None:
    _, names = candidates("5 classes, 1 image each, no GPU")
    assert "protonet" in names
    assert "maml" not in names, "it costs more"
    assert "r2d2" not in names, "one example of each class is too few"
    _, names = candidates("any number of classes, moderate")
    assert all(CATALOGUE[name].any_way for name in names)
    _, names = candidates("regression")
    assert {"maml", "joint"} <= set(names)
    assert "protonet" not in names


def test_what_is_not_understood_is_named() -> None:
    with pytest.raises(ConfigError, match="'a lot of magic' is not understood"):
        candidates("5 classes, a lot of magic")


def test_the_page_is_what_the_command_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algorithms", "--markdown"]) == 0
    assert DOCS.read_text(encoding="utf-8") == capsys.readouterr().out


def test_the_command_says_how_it_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algorithms", "--for", "5 classes, 3 images each, no GPU"]) == 0
    told = capsys.readouterr().out
    assert "understood: goal classification, 5 classes, 3 examples of each class, cost low" in told
    assert "protonet" in told
    assert main(["algorithms", "--for", "nonsense"]) == 2
