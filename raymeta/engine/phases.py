"""Where time goes: every moment belongs to one named phase, so that the phases of a step add up to it."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch
from torch.profiler import record_function

EPISODES, GRADIENT, TRANSFER = "episodes", "meta-gradient", "transfer"
FOLD, OUTER, METRICS = "fold", "outer step", "metrics"
CHECKPOINT, VALIDATION, REST = "checkpoint", "validation", "the rest"
PHASES = (EPISODES, GRADIENT, TRANSFER, FOLD, OUTER, METRICS, CHECKPOINT, VALIDATION, REST)
"""Every phase of a step, in the order in which they are told."""
WORK = "work"
"""Phase in which the driver is kept by its executor; what workers did meanwhile says what it was."""


class Phases:
    """Seconds by phase since the last lap. `with phases(NAME):` is that phase, but for what is entered inside."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._entered = [REST]
        self._since = time.perf_counter()

    def __call__(self, name: str) -> Phase:
        return Phase(self, name)

    def lap(self) -> dict[str, float]:
        """Seconds of every phase since the last call, which add up to the time since then."""
        self._account()
        seconds, self._seconds = self._seconds, {}
        return seconds

    def enter(self, name: str) -> None:
        self._account()
        self._entered.append(name)

    def leave(self) -> None:
        self._account()
        self._entered.pop()

    def _account(self) -> None:
        now, name = time.perf_counter(), self._entered[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


class Phase:
    """A stay in a phase, and a named range in a trace that is being recorded."""

    __slots__ = ("_name", "_phases", "_range")

    def __init__(self, phases: Phases, name: str) -> None:
        self._phases, self._name = phases, name
        self._range: Any = None  # a `record_function`, which has no types

    def __enter__(self) -> None:
        if torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            self._range = record_function(self._name)
            self._range.__enter__()
        self._phases.enter(self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._phases.leave()
        if self._range is not None:
            self._range.__exit__(kind, error, trace)
