"""Trainings of equal length, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any, NamedTuple

from raymeta.api.train import Training
from raymeta.config.schema import RunConfig
from raymeta.engine.driver.state import RunState
from raymeta.runs.read import Run


class Budget:
    """Asks for a stop when the seconds of a training are over."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._began: float | None = None

    def __call__(self) -> str | None:
        self._began = self._clock() if self._began is None else self._began
        return "the budget is used up" if self.spent() >= self._seconds else None

    def spent(self) -> float:
        """Seconds since the first step."""
        return 0.0 if self._began is None else self._clock() - self._began


def clock_of(workers: int) -> Callable[[], float]:
    """Seconds of the processor; with Ray workers, which are other processes, of the clock."""
    return time.perf_counter if workers else time.process_time


class Trained(NamedTuple):
    """A training that ended after its seconds."""

    run: Run
    state: RunState
    config: RunConfig
    seconds: float


def trained(config: RunConfig, seconds: float) -> Trained:
    """Train for so many seconds, or for all steps of `config`."""
    budget = Budget(seconds, clock_of(config.workers))
    training = Training(config, stop=budget)
    return Trained(training.execute(), training.state, config, budget.spent())


def in_own_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The row that `function` gives with its date, or why there is none."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            row = process.submit(function, *arguments).result()
        except Exception as error:  # of any method: the others go on
            row = {"failed": f"{type(error).__name__}: {str(error)[:500]}"}
    return {"date": date, **row}
