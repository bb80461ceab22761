"""What the scores of one task stand over (inner steps, instances of a class, steps of an optimiser), and its words.

Whether a method adapts at all is decided here, for terminals, pages and reports alike: see `axis_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

AxisName = Literal["inner step", "instance", "unroll step"]


class Axis(NamedTuple):
    """An axis of scores within one task, in words."""

    place: str
    """one place on it"""
    places: str
    title: str
    """beside the axis of a figure"""
    first: int
    """number of the first place: 0 where that is before anything happened"""
    before: str
    """at the first place"""
    after: str
    """at the last one"""
    both: str
    doing: str
    """before numbers from the first to the last"""

    def numbers(self, count: int) -> list[int]:
        """The numbers of so many places."""
        return list(range(self.first, self.first + count))

    def end(self, count: int) -> str:
        """Where the last of so many scores stands: `after 5 inner steps`, `at instance 10`."""
        last = self.first + count - 1
        if self.first:
            return f"at {self.place} {last}"
        return f"after {last} {self.place if last == 1 else self.places}"


AXES: Final[Mapping[AxisName, Axis]] = MappingProxyType(
    {
        "inner step": Axis(
            "inner step", "inner steps", "inner step (0: before adapting)", 0,
            "before adapting", "after adapting", "before and after adapting", "adapting",
        ),
        "instance": Axis(
            "instance", "instances", "instance of its class", 1,
            "at the first instance", "at the last instance", "at the first and last instance of a class", "instances",
        ),
        "unroll step": Axis(
            "step of the optimisee", "steps of the optimisee", "step of the optimisee (0: before the first)", 0,
            "before optimising", "after optimising", "before and after optimising", "optimising",
        ),
    }
)  # fmt: skip
"""Every axis there is, by its name in a run's files."""
INNER_STEP: Final[AxisName] = "inner step"


def axis_of(name: object, scores: Sequence[float]) -> Axis | None:
    """The axis called `name` of a method's scores in one task.

    None where there is a single score: such a method takes no inner step, so nothing is said of before and after. Files
    of earlier versions do not name their axis, which was then called inner step.
    """
    if len(scores) < 2:
        return None
    return next((axis for known, axis in AXES.items() if known == name), AXES[INNER_STEP])
