"""Where time goes: every moment belongs to one named phase, so that the phases of a step add up to it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


_is_tracing: Callable[[], bool] = torch.autograd._profiler_enabled  # type: ignore[attr-defined]


class Stopwatch:
    """Seconds by phase since the last lap; in a trace that is being recorded, each stay in a phase is a named range.

    `begin(NAME)` ends the phase before it and costs a microsecond. `with stopwatch(NAME):` goes back to the phase that
    was there before.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._current = REST
        self._since = time.perf_counter()
        self._range: Any = None  # a `record_function`, which has no types

    def begin(self, name: str) -> None:
        """From now on it is phase `name`."""
        now = time.perf_counter()
        self._seconds[self._current] += now - self._since
        self._current, self._since = name, now
        if self._range is not None or _is_tracing():
            self._trace(name)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        before = self._current
        self.begin(name)
        try:
            yield
        finally:
            self.begin(before)

    def lap(self, name: str = REST) -> dict[str, float]:
        """Seconds of every phase since the last call, which add up to the time since then; now it is phase `name`."""
        self.begin(name)
        seconds, self._seconds = self._seconds, defaultdict(float)
        return seconds

    def _trace(self, name: str) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
        if name != REST and _is_tracing():
            self._range = record_function(name)
            self._range.__enter__()
