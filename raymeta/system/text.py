"""Text for people: without control characters, durations, and nested options in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def clean(text: str) -> str:
    """Without control characters, so that no name or message can steer a terminal; further lines are indented."""
    return "".join(c if c.isprintable() else "\n    " if c == "\n" else " " if c == "\t" else "" for c in text.strip())


def duration(seconds: float) -> str:
    """`1:12:30`, or `3 d 4:05:00`."""
    days, rest = divmod(round(max(seconds, 0.0)), 86_400)
    clock_text = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock_text}" if days else clock_text


def dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as `{"algorithm.inner_lr": 0.1, ...}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat.update(dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
