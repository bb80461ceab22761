"""What a sweep searches: ranges and choices of configuration keys, and keys that exist only under some choices.

A point is a flat mapping from dotted configuration keys to values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Point = dict[str, Any]


class Tried(NamedTuple):
    """A configuration proposed before: its score, larger is better; None while it runs, -inf where it failed."""

    point: Point
    score: float | None


def generator(seed: int, index: int) -> np.random.Generator:
    """The random numbers of configuration `index`: counter-based, so that none depends on another."""
    return np.random.Generator(np.random.Philox(key=[seed, index]))


DIGITS = 4
"""Significant digits of a drawn number: more would only be noise in tables and files."""
NEIGHBOUR = 0.2
"""Standard deviation of a change of a number, as a share of its range."""


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included: even in the logarithm, or in steps counted from `low`."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> list[float]:
        """The smallest and the largest value that can come."""
        return [self.low, self._at(1.0)]

    def draw(self, rng: np.random.Generator) -> float:
        if self.step is not None:
            return self._step(int(rng.integers(self.count)))
        return self._at(rng.random())

    def neighbour(self, value: float, rng: np.random.Generator) -> float:
        """Another value near `value`."""
        if self.step is not None:
            index, last = round((value - self.low) / self.step), self.count - 1
            distance = max(1, round(abs(rng.normal(0, NEIGHBOUR * last))))
            signed = distance if rng.random() < 0.5 else -distance
            inside = index + signed if 0 <= index + signed <= last else index - signed
            return self._step(min(max(inside, 0), last))
        return self._at(min(max(self.share(value) + rng.normal(0, NEIGHBOUR), 0.0), 1.0))

    def clip(self, value: float) -> float:
        """The value nearest to `value`."""
        if self.step is not None:
            return self._step(min(max(round((value - self.low) / self.step), 0), self.count - 1))
        return self._at(min(max(self.share(value), 0.0), 1.0))

    def share(self, value: float) -> float:
        """Where `value` lies between the ends, from 0 to 1."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.step, int)

    @property
    def count(self) -> int:
        """How many values there are, in steps."""
        return math.floor((self.high - self.low) / (self.step or 1) + 1e-9) + 1

    def _step(self, index: int) -> float:
        value = self.low + index * (self.step or 1)
        return value if self.whole else float(f"{value:.10g}")

    def _at(self, share: float) -> float:
        if self.step is not None:
            return self._step(round(share * (self.count - 1)))
        width = self.high - self.low
        value = self.low * (self.high / self.low) ** share if self.log else self.low + share * width
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


class Option(NamedTuple):
    """A value to choose, and the keys that exist with it only."""

    value: Any
    below: Space


@dataclass(frozen=True)
class Choice:
    """One of several values; `crossed` ones are all tried with each other. A single option is a fixed value."""

    options: tuple[Option, ...]
    crossed: bool = False

    def option(self, value: Any) -> Option:
        """The option with this value."""
        return next(option for option in self.options if option.value == value)

    def index(self, value: Any) -> int:
        return self.options.index(self.option(value))


class Dimension(NamedTuple):
    """A key, what it may be, where that was written, and the choices under which it exists."""

    key: str
    domain: Interval | Choice
    where: str
    path: str

    @property
    def fixed(self) -> bool:
        return isinstance(self.domain, Choice) and len(self.domain.options) == 1


class Case(NamedTuple):
    """A value that a dimension can take, within a whole point."""

    dimension: Dimension
    value: Any
    point: Point


@dataclass(frozen=True)
class Space:
    """All dimensions, in the order of the file."""

    dimensions: tuple[Dimension, ...] = ()

    def draw(self, rng: np.random.Generator, chosen: Point | None = None) -> Point:
        """A point at random, in which the values in `chosen` are given."""
        chosen, point = chosen or {}, Point()
        for dimension in self.dimensions:
            domain = dimension.domain
            if isinstance(domain, Interval):
                point[dimension.key] = domain.draw(rng)
                continue
            drawn = domain.options[int(rng.integers(len(domain.options)))]
            option = domain.option(chosen[dimension.key]) if dimension.key in chosen else drawn
            point |= {dimension.key: option.value} | option.below.draw(rng, chosen)
        return point

    def crossed(self, *, every_choice: bool = False) -> list[Point]:
        """All combinations of the values that are crossed, or of all choices; one empty point without any."""
        axes: list[list[Point]] = []
        for dimension in self.dimensions:
            domain = dimension.domain
            if isinstance(domain, Choice) and (domain.crossed or every_choice):
                axes.append(
                    [
                        {dimension.key: option.value} | below
                        for option in domain.options
                        for below in option.below.crossed(every_choice=every_choice)
                    ]
                )
        return [{k: v for part in parts for k, v in part.items()} for parts in itertools.product(*axes)]

    def walk(self, point: Point) -> Iterator[Dimension]:
        """The dimensions that exist at `point`."""
        for dimension in self.dimensions:
            yield dimension
            if isinstance(dimension.domain, Choice):
                yield from dimension.domain.option(point[dimension.key]).below.walk(point)

    def all(self) -> Iterator[Dimension]:
        """Every dimension, whatever is chosen."""
        for dimension in self.dimensions:
            yield dimension
            if isinstance(dimension.domain, Choice):
                for option in dimension.domain.options:
                    yield from option.below.all()

    def mutate(self, point: Point, rng: np.random.Generator) -> Point:
        """`point` with one dimension changed; what exists only with a new choice is drawn."""
        free = [dimension for dimension in self.walk(point) if not dimension.fixed]
        if not free:
            return dict(point)
        changed = free[int(rng.integers(len(free)))]
        return self._changed(point, changed.path, rng)

    def _changed(self, point: Point, path: str, rng: np.random.Generator) -> Point:
        result = Point()
        for dimension in self.dimensions:
            key, domain = dimension.key, dimension.domain
            if isinstance(domain, Interval):
                result[key] = domain.neighbour(point[key], rng) if dimension.path == path else point[key]
                continue
            option = domain.option(point[key])
            if dimension.path == path:
                others = [other for other in domain.options if other.value != option.value]
                option = others[int(rng.integers(len(others)))]
                result |= {key: option.value} | option.below.draw(rng)
            else:
                result |= {key: option.value} | option.below._changed(point, path, rng)
        return result

    def first(self) -> Point:
        """The point of all low ends and first options."""
        point = Point()
        for dimension in self.dimensions:
            if isinstance(dimension.domain, Interval):
                point[dimension.key] = dimension.domain.low
            else:
                option = dimension.domain.options[0]
                point |= {dimension.key: option.value} | option.below.first()
        return point

    def cases(self) -> Iterator[Case]:
        """Both ends of every range and every option, one at a time, where they exist."""
        for dimension in self.dimensions:
            rest = Space(tuple(other for other in self.dimensions if other is not dimension)).first()
            if isinstance(dimension.domain, Interval):
                for value in dimension.domain.ends:
                    yield Case(dimension, value, {**rest, dimension.key: value})
                continue
            for option in dimension.domain.options:
                here = {**rest, dimension.key: option.value}
                yield Case(dimension, option.value, here | option.below.first())
                for case in option.below.cases():
                    yield case._replace(point=here | case.point)


def fixed(value: Any) -> Choice:
    """The domain of a value that is not searched."""
    return Choice((Option(value, Space()),), crossed=True)


def describe(point: Point, keys: Sequence[str] | None = None) -> str:
    """`algorithm.inner_lr 0.1, model.width 32`, in short."""
    shown = point if keys is None else {key: point[key] for key in keys if key in point}
    return ", ".join(f"{key} {value}" for key, value in shown.items()) or "the base as it is"
