"""The parts of a page, see the package's docstring, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from raymeta.system import text
from raymeta.trackers.scores import score_named, value_text
from raymeta.views.figures.style import Spec, is_number

Block = dict[str, Any]
Section = dict[str, Any]
Page = dict[str, Any]


def section(name: str, title: str, blocks: Iterable[Block | None]) -> Section:
    """A section; blocks that are None are left out."""
    return {"id": name, "title": title, "blocks": [block for block in blocks if block is not None]}


def chart(key: str, spec: Spec) -> Block | None:
    """A figure, or nothing where it has nothing to draw."""
    drawn = any(len(trace.get("x") or trace.get("z") or ()) for trace in spec["data"])
    return {"type": "figure", "key": key, "spec": spec} if drawn else None


def wide(block: Block | None) -> Block | None:
    """The block over the whole width of its page."""
    return None if block is None else block | {"wide": True}


def table(key: str, label: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Block | None:
    """A table, or nothing without rows."""
    shown = {"type": "table", "key": key, "label": label, "columns": list(columns), "rows": [list(row) for row in rows]}
    return shown if rows else None


def note(text: str, tone: str = "info") -> Block:
    return {"type": "note", "text": text, "tone": tone}


def code(label: str, text: str) -> Block:
    return {"type": "code", "label": label, "text": text}


def fact(label: str, value: str, hint: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "hint": hint}


def score(headline: object) -> str:
    """`97.31 ± 0.42 %` or `0.0312 ± 0.0021`; a dash without a score."""
    if not isinstance(headline, dict) or not is_number(headline.get("value")):
        return "–"
    return value_text(str(headline.get("name")), float(headline["value"]), interval_of(headline))


def interval_of(headline: dict[str, Any]) -> float | None:
    ci95 = headline.get("ci95")
    return float(ci95) if is_number(ci95) else None


def intervals_of(test: dict[str, Any]) -> list[float]:
    """Half-widths of a test's intervals along its axis; the last one's alone where no others are written."""
    found = test.get("ci95_by_inner_step")
    if isinstance(found, list) and found and all(is_number(width) for width in found):
        return [float(width) for width in found]
    last = interval_of(test["headline"])
    return [] if last is None else [last]


def plain(value: float, name: str) -> str:
    """One score without its interval: `97.3 %` or `0.0312`."""
    return f"{100 * value:.1f} %" if score_named(name).percent else f"{value:.3g}"


def duration(seconds: object) -> str:
    """A time in words; a dash for anything that is no time."""
    return text.duration(seconds) if is_number(seconds) and seconds >= 0 else "–"


def when(value: object) -> str:
    """An ISO time or seconds since 1970 in this machine's time zone."""
    try:
        if is_number(value):
            return f"{datetime.fromtimestamp(float(value)):%Y-%m-%d %H:%M:%S}"
        return f"{datetime.fromisoformat(str(value)).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return "–"


def count(value: object) -> str:
    """A whole number with separators, or a dash."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "–"
