"""The list of deliberate mistakes keeps pace with the code; `python tools/mutations.py` tries them on the tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from by_path import program

ROOT = Path(__file__).parents[2]
PARTS = 4


def tool() -> ModuleType:
    return program("tools/mutations.py")


def test_there_are_many_mistakes_of_different_names() -> None:
    names = [mutation.name for mutation in tool().mutations()]
    assert len(names) >= 60
    assert sorted(set(names)) == sorted(names)


def test_each_old_text_is_found_once() -> None:
    """Where code has changed, the mistake has to change with it."""
    counts = {mutation.name: tool().occurrences(mutation) for mutation in tool().mutations()}
    assert {name: count for name, count in counts.items() if count != 1} == {}
    assert all(mutation.old != mutation.new for mutation in tool().mutations())


def test_each_mistake_leaves_code_that_can_be_read() -> None:
    """A mistake of grammar would be noticed by any test."""
    for mutation in tool().mutations():
        text = (ROOT / "raymeta" / mutation.file).read_text(encoding="utf-8")
        ast.parse(text.replace(mutation.old, mutation.new), mutation.name)


def test_the_tests_that_are_named_exist() -> None:
    for mutation in tool().mutations():
        file, _, function = mutation.test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {re.escape(function.partition('[')[0])}\(", text, flags=re.MULTILINE), mutation.name


def test_parts_hold_every_mistake_once() -> None:
    everything: list[Any] = tool().mutations()
    parts = [tool().part_of(everything, f"{number}/{PARTS}") for number in range(1, PARTS + 1)]
    assert sorted(mutation for part in parts for mutation in part) == sorted(everything)
    for wrong in ("0/4", "5/4", "1/0", "half"):
        with pytest.raises(ValueError, match=r".+"):
            tool().part_of(everything, wrong)


def test_a_text_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "raymeta").mkdir()
    (tmp_path / "raymeta" / "keys.py").write_text("nothing\n")
    mutation = next(m for m in tool().mutations() if m.file == "keys.py")
    assert tool().outcome(tmp_path, mutation, None) == "OLD TEXT FOUND 0 TIMES"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", [f"{number}/{PARTS}" for number in range(1, PARTS + 1)])
def test_every_mistake_is_caught(part: str) -> None:
    assert tool().main(["--part", part]) == 0
