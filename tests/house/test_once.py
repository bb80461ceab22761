"""One function for one thing: near names, nested options as dotted ones, half-widths of intervals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import raymeta
from raymeta.system.text import did_you_mean, dotted, duration, nearest

ROOT = Path(raymeta.__file__).parent


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        (r"get_close_matches\(", "system/text.py"),
        (r"did you mean \{", "system/text.py"),
        (r"\b1\.96 \*", "trackers/scores.py"),
        (r'f"\{prefix\}\{\w+\}\."', "system/text.py"),
    ],
)
def test_it_is_written_once(pattern: str, place: str) -> None:
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(pattern, text)] == [place]


def test_near_names_are_told() -> None:
    assert nearest("mamml", ["anil", "maml"]) == ["maml"]
    assert did_you_mean(["maml"], before=": ", after=" ") == ": did you mean maml? "
    assert did_you_mean(["a", "b"]) == "did you mean a or b?"
    assert did_you_mean([], before=": ", after=" ") == ""


def test_nested_options_become_dotted() -> None:
    assert dotted({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


def test_durations_have_two_parts_at_most() -> None:
    assert [duration(s) for s in (0.4, 59.6, 3_599, 3_600, 90_061)] == [
        "0 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
        "1 d 1 h",
    ]
