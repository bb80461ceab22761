"""The `space` of a sweep file: from YAML to dimensions, with the line of every mistake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from raymeta.config import yaml_lines
from raymeta.config.variants import SECTIONS
from raymeta.config.yaml_lines import KeyPath
from raymeta.sweeps.file.space import Choice, Dimension, Interval, Option, Space, fixed

DOMAINS = ("loguniform", "uniform", "quniform", "randint", "choice", "grid")
_SHAPES = {
    "loguniform": "loguniform: [LOW, HIGH] with 0 < LOW < HIGH",
    "uniform": "uniform: [LOW, HIGH] with LOW < HIGH",
    "quniform": "quniform: [LOW, HIGH, STEP] with LOW < HIGH and 0 < STEP <= HIGH - LOW",
    "randint": "randint: [LOW, HIGH], whole numbers with LOW < HIGH, both included",
    "choice": "choice: a list of values, or a mapping from values to the keys that exist with them only",
    "grid": "grid: a list of values, or a mapping from values to the keys that exist with them only",
}


@dataclass
class SpaceParser:
    """Collects dimensions, and the mistakes of all of them."""

    where: str
    lines: Mapping[KeyPath, int]
    errors: list[str] = field(default_factory=list)

    def parse(self, content: Any) -> Space:
        """The space in `content`, the value of `space`."""
        if not isinstance(content, dict):
            self._error(("space",), "space is a mapping from configuration keys to ranges")
            return Space()
        return self._space(content, ("space",), "", frozenset())

    def _space(self, content: Mapping[str, Any], at: KeyPath, above: str, taken: frozenset[str]) -> Space:
        dimensions: list[Dimension] = []
        for name, value, here in _entries(content, at):
            key = name.removesuffix(".name") if name.removesuffix(".name") in SECTIONS else name
            if key in taken or any(dimension.key == key for dimension in dimensions):
                self._error(here, f"{key} is searched twice here: keep one, or put both under different choices")
                continue
            keys = taken | {dimension.key for dimension in dimensions} | {key}
            domain = self._domain(key, value, here, above + key, keys)
            if domain is not None:
                dimensions.append(Dimension(key, domain, self._at(here), above + key))
        return Space(tuple(dimensions))

    def _domain(self, key: str, value: Any, at: KeyPath, path: str, taken: frozenset[str]) -> Interval | Choice | None:
        if not isinstance(value, dict):
            return fixed(value)
        if len(value) != 1 or next(iter(value)) not in DOMAINS:
            given = ", ".join(value) or "nothing"
            self._error(at, f"{key} is given {given}: write one of {', '.join(DOMAINS)}, or a plain value")
            return None
        ((kind, content),) = value.items()
        if kind in ("choice", "grid"):
            return self._choice(key, kind, content, (*at, kind), path, taken)
        numbers = content if isinstance(content, list) else []
        interval = _interval(kind, numbers) if all(_is_number(n) for n in numbers) else None
        if interval is None:
            self._error((*at, kind), f"{key}: {kind} {content!r} should be {_SHAPES[kind]}")
        return interval

    def _choice(
        self, key: str, kind: str, content: Any, at: KeyPath, path: str, taken: frozenset[str]
    ) -> Choice | None:
        if isinstance(content, list) and content:
            if any(value in content[:i] for i, value in enumerate(content)):
                self._error(at, f"{key}: {kind} {content!r} holds a value twice")
                return None
            return Choice(tuple(Option(value, Space()) for value in content), crossed=kind == "grid")
        if not isinstance(content, dict) or not content:
            self._error(at, f"{key}: {kind} {content!r} should be {_SHAPES[kind]}")
            return None
        options = []
        for value, below in content.items():
            if below is not None and not isinstance(below, dict):
                self._error((*at, value), f"{key}: under {value} stands {below!r} instead of keys and their ranges")
                continue
            space = self._space(below or {}, (*at, value), f"{path}={value}/", taken)
            options.append(Option(yaml_lines.scalar(value), space))
        return Choice(tuple(options), crossed=kind == "grid")

    def _at(self, path: KeyPath) -> str:
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.where}:{self.lines[path]}" if path else self.where

    def _error(self, path: KeyPath, text: str) -> None:
        self.errors.append(f"{self._at(path)}: {text}")


def _entries(content: Mapping[str, Any], at: KeyPath) -> Iterator[tuple[str, Any, KeyPath]]:
    """Keys with what stands there and where; `model: {width: ...}` is `model.width: ...`."""
    for name, value in content.items():
        if name in (*SECTIONS, "outer") and isinstance(value, dict) and value and not set(value) & {*DOMAINS}:
            for below, item in value.items():
                yield f"{name}.{below}", item, (*at, name, below)
        else:
            yield name, value, (*at, name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _interval(kind: str, numbers: list[float]) -> Interval | None:
    if len(numbers) != (3 if kind == "quniform" else 2) or numbers[0] >= numbers[1]:
        return None
    low, high = numbers[:2]
    if kind == "quniform":
        return Interval(low, high, step=numbers[2]) if 0 < numbers[2] <= high - low else None
    if kind == "randint":
        return Interval(low, high, step=1) if isinstance(low, int) and isinstance(high, int) else None
    if kind == "loguniform":
        return Interval(low, high, log=True) if low > 0 else None
    return Interval(low, high)
