"""Text for people: without control characters, durations, near names, and nested options in one line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def clean(text: str) -> str:
    """Without control characters, so that no name or message can steer a terminal; further lines are indented."""
    return "".join(c if c.isprintable() else "\n    " if c == "\n" else " " if c == "\t" else "" for c in text.strip())


def duration(seconds: float) -> str:
    """`12 s`, `4 min 10 s`, `3 h 12 min` or `2 d 4 h`."""
    whole = math.floor(max(seconds, 0.0) + 0.5)
    for size, unit, part, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {name}"
    return f"{whole} s"


def nearest(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that `name` may be a slip of, nearest first."""
    from difflib import get_close_matches  # only a mistake needs it

    return get_close_matches(name, list(known), n=most, cutoff=cutoff)


def did_you_mean(near: Sequence[str], *, before: str = "", after: str = "") -> str:
    """`did you mean maml?` between what stands around it; empty where nothing is near."""
    return f"{before}did you mean {' or '.join(near)}?{after}" if near else ""


def dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as `{"algorithm.inner_lr": 0.1, ...}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat.update(dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def settings_text(config: Mapping[str, Any]) -> str:
    """What sets one row of a sweep apart: `algorithm erm, outer.lr 0.1`."""
    return ", ".join(f"{key} {value}" for key, value in config.items()) or "all settings"
