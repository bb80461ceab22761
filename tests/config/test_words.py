"""What is said of a configuration, and how it may be written: notes, lists, help."""

from __future__ import annotations

from typing import Any

import pytest

from raymeta.config.arguments import split_arguments
from raymeta.config.describe import run_options
from raymeta.config.help import GROUPS, help_text
from raymeta.config.load import Loaded, load_config
from raymeta.config.variants import SECTIONS, registry
from raymeta.errors import ConfigError
from raymeta.train import FLAGS


def loaded(*argv: str) -> Loaded:
    return load_config(overrides=split_arguments(argv, FLAGS).overrides)


def test_what_was_given_for_the_new_variant_is_not_called_dropped() -> None:
    (note,) = loaded("--preset", "glyphs-5w1s-maml", "--algorithm", "reptile", "--algorithm.inner_lr", "0.1").notes
    dropped = note.partition("dropped: ")[2].split(", ")
    assert "algorithm.inner_lr" not in dropped
    assert {"algorithm.inner_steps", "outer.lr"} <= set(dropped)


def test_what_nobody_asked_for_is_not_missed() -> None:
    assert loaded("--algorithm", "protonet").notes == []
    assert loaded("--preset", "glyphs-5w1s-maml", "--algorithm", "protonet").notes != []


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--algorithm.inner_steps", "20"], True),
        (["--algorithm.inner_steps", "20", "--algorithm.test_inner_steps", "9"], False),
        (["--algorithm.inner_steps", "3"], False),
        (["--algorithm", "anil", "--algorithm.inner_steps", "20"], False),
        ([], False),
    ],
)
def test_other_inner_steps_at_test_than_those_given_are_told(argv: list[str], told: bool) -> None:
    """The preset tests with three."""
    notes = loaded(*argv).notes
    assert len(notes) == told
    assert not told or "trains with 20 inner steps and tests with 3" in notes[0]


@pytest.mark.parametrize(
    ("argv", "section", "option", "value"),
    [
        (["--model", "mlp", "--model.hidden", "40,30"], "model", "hidden", (40, 30)),
        (["--model", "mlp", "--model.hidden", "40"], "model", "hidden", (40,)),
        (["--algorithm.adapt_only", "head*, body.1*"], "algorithm", "adapt_only", ("head*", "body.1*")),
        (
            ["--tasks", "images", "--tasks.root", "x", "--tasks.train_classes", "1,2", "--tasks.test_classes", "3"],
            "tasks",
            "train_classes",
            ("1", "2"),
        ),
        (
            ["--tasks", "images", "--tasks.root", "x", "--tasks.split_ratio", "0.5,0.25,0.25"],
            "tasks",
            "split_ratio",
            (0.5, 0.25, 0.25),
        ),
    ],
)
def test_lists_need_no_brackets(argv: list[str], section: str, option: str, value: Any) -> None:
    assert getattr(getattr(loaded(*argv).config, section), option) == value


def shown(*argv: str) -> str:
    return help_text(FLAGS, split_arguments(argv, FLAGS).overrides)


def test_the_help_has_every_option_and_variant_once_and_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown()
    entries = [line.split()[0] for line in text.splitlines() if line.startswith("  -")]
    for name in run_options():
        assert entries.count(f"--{name}") == 1, name
    for section in SECTIONS:
        for name in registry(section):
            once = sum(name in registry(other) for other in SECTIONS)  # in each section that has the name
            assert sum(line.split()[:1] == [name] for line in text.splitlines()) == once, name
    examples = text[text.index("examples") : text.index("flags\n")]
    assert max(len(line) for line in text.replace(examples, "").splitlines()) <= 80
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(run_options())


def test_options_that_must_be_given_are_helped_with_and_missed_in_one_line() -> None:
    for section, name, option in (("model", "derived", "genotype"), ("model", "custom", "path")):
        assert f"--{section}.{option} " in shown(f"--{section}", name)
        with pytest.raises(ConfigError, match=f"{section}.{option} is missing") as refused:
            loaded(f"--{section}", name)
        assert "\n" not in str(refused.value)


def test_the_help_shows_the_defaults_of_a_run_that_says_nothing() -> None:
    config = loaded().config
    lines = " ".join(shown().split())
    for option, value in (("--steps", config.steps), ("--model.width", config.model.width)):  # type: ignore[attr-defined]
        entry = lines[lines.index(f" {option} ") :]
        assert entry[entry.index("[") + 1 : entry.index("]")] == str(value)


def test_the_help_of_a_chosen_variant_has_its_options() -> None:
    assert "--algorithm.test_inner_batch_size" in shown("--algorithm", "reptile")
    assert "--algorithm.test_inner_batch_size" not in shown()
