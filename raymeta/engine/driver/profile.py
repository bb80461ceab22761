"""`--profile`: a trace of some steps that people can open, and a table of where the time of all steps went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from raymeta.engine.stopwatch import EPISODES, GRADIENT, PHASES, TRANSFER, WORK, Stopwatch
from raymeta.system.files import write_json, write_problem

TRACE, TABLE = "trace.json", "profile.json"
FIRST_TRACED = 3
"""The first step of an attempt compiles and loads, the second one fills caches: neither is traced."""


class Profile:
    """Records one attempt at a run; as a context, it writes both files when it is left, or the table alone where no
    steps are to be traced.

    The table leaves the first step out, which is another kind of step, and the traced ones, which tracing slows down,
    unless there are no others.
    """

    def __init__(self, directory: Path, *, traced_steps: int, num_workers: int) -> None:
        self._directory, self._last_traced = directory, FIRST_TRACED + traced_steps - 1
        self._num_workers = num_workers  # 0: this process computes
        self.num_steps = 0
        self.work: Counter[str] = Counter()
        """seconds by phase of those who compute the step that has begun, to be added to"""
        self._counts: Counter[str] = Counter()
        self._seconds: dict[str, Counter[str]] = {kind: Counter() for kind in ("first", "traced", "plain")}
        self._worker_seconds: dict[str, Counter[str]] = {kind: Counter() for kind in self._seconds}
        self._profiler: profile | None = None
        self._traced_step: Any = None  # a `record_function`, which has no types

    def begin_step(self, phases: Stopwatch) -> None:
        """The next step of this attempt begins."""
        self.num_steps += 1
        self.work.clear()
        if self.num_steps == FIRST_TRACED <= self._last_traced:
            self._profiler = profile(activities=_activities())
            self._profiler.start()
        if self._profiler is not None:
            self._traced_step = record_function(f"step {self.num_steps}")
            self._traced_step.__enter__()
        if self.num_steps == 1 or self._profiler is not None:
            phases.lap()  # starting to trace belongs to no step

    def end_step(self, phases: Stopwatch) -> None:
        """It is done with all that followed it."""
        kind = "first" if self.num_steps == 1 else "plain" if self._profiler is None else "traced"
        self._counts[kind] += 1
        self._seconds[kind].update(divided(phases.lap(), self.work, max(1, self._num_workers)))
        self._worker_seconds[kind].update(self.work)
        if self._traced_step is not None:
            self._traced_step.__exit__(None, None, None)
            self._traced_step = None
        if self.num_steps == self._last_traced:
            self._end_trace()
            phases.lap()

    def __enter__(self) -> Profile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_trace()
        if self.num_steps:
            write_json(self._directory / TABLE, self.table())

    def _end_trace(self) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        path = self._directory / TRACE
        try:
            profiler.export_chrome_trace(str(path))
        except OSError as error:
            raise write_problem(path, error) from error

    def files_text(self) -> str:
        """Where what was recorded lies."""
        trace = self._directory / TRACE
        shown = f"; trace: {trace}, for https://ui.perfetto.dev" if trace.exists() else ""
        return f"table: {self._directory / TABLE}{shown}"

    def table(self) -> dict[str, Any]:
        """What `profile.json` holds: seconds of a step, and of each of its phases, which add up to it."""
        counted = next(kind for kind in ("plain", "traced", "first") if self._counts[kind])
        num_steps, seconds = self._counts[counted], self._seconds[counted]
        return {
            "steps": num_steps,
            "counted": counted,
            "step_s": seconds.total() / num_steps,
            "phases_s": {name: seconds[name] / num_steps for name in PHASES},
            "first_step_s": self._seconds["first"].total(),
            "workers": self._num_workers,
            "worker_phases_s": {name: s / num_steps for name, s in self._worker_seconds[counted].items()},
            "trace": TRACE if self._counts["traced"] else None,
        }


def divided(driver: Mapping[str, float], work: Mapping[str, float], num_workers: int) -> dict[str, float]:
    """The driver's seconds with those in which it waited (`WORK`) divided by what the workers did meanwhile.

    Episodes and gradients count as if spread evenly over the workers; the rest of the wait, which is sending, queues
    and workers that had nothing to do, is the transfer. What workers did while the driver did not wait is not counted.
    """
    result = {name: seconds for name, seconds in driver.items() if name != WORK}
    waited = driver.get(WORK, 0.0)
    own = {name: work.get(name, 0.0) / num_workers for name in (EPISODES, GRADIENT)}
    scale = min(1.0, waited / sum(own.values())) if any(own.values()) else 0.0
    for name, seconds in own.items():
        result[name] = result.get(name, 0.0) + scale * seconds
    result[TRANSFER] = result.get(TRANSFER, 0.0) + waited - scale * sum(own.values())
    return result


def profile_text(table: dict[str, Any]) -> str:
    """The table for people."""
    step_s, num_steps = table["step_s"], table["steps"]
    what = {"plain": "", "traced": ", all slowed down by tracing", "first": ": the first, which loads and compiles"}
    lines = [f"a step takes {_duration(step_s)} (mean of {num_steps:,}{what[table['counted']]}):"]
    for name, seconds in table["phases_s"].items():
        lines.append(f"  {name:14} {_duration(seconds):>10} {100 * seconds / step_s:5.1f} %")
    if table["workers"]:
        parts = ", ".join(f"{name} {_duration(s)}" for name, s in table["worker_phases_s"].items())
        lines.append(f"  {table['workers']} workers together, in a step: {parts}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _activities() -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
