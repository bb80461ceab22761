"""How a run ended, or where it is: one text for lists, comparisons, pages and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_STOPPED = {"time_limit": "stopped by time limit", "signal": "stopped by a signal"}
"""By the reason in `run.json`; a run that its time limit stopped was tested, and its status is `finished`."""


class Ending(NamedTuple):
    """What became of a run after `step` of `steps` outer steps."""

    how: str
    """`finished`, `stopped by time limit`, `stopped by a signal`, `stopped`, `failed`, `lost` or `running`"""
    step: int
    steps: int

    @property
    def steps_done(self) -> str:
        """`71 of 150`."""
        return f"{self.step:,} of {self.steps:,}"

    @property
    def text(self) -> str:
        """`finished`, or `stopped by time limit at 71 of 150`."""
        return self.how if self.how == "finished" else f"{self.how} at {self.steps_done}"


def ending(status: str, info: Mapping[str, Any]) -> Ending:
    """The ending of a run that reads as `status`, from its `run.json`, which may be damaged."""
    how = status
    if status in ("finished", "stopped"):
        how = _STOPPED.get(str(info.get("reason")), status)
    return Ending(how, _whole(info.get("step")), _whole(info.get("steps")))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
