"""Progress for people and programs: a live display on a terminal, stamped lines in a log, or JSON lines."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, TextIO, get_args

from raymeta.errors import ConfigError
from raymeta.files import json_text
from raymeta.runs.outlet import Outlet
from raymeta.runs.tracker import (
    FAULT_KINDS,
    TASKS_PER_S,
    TRAIN_QUERY_ACCURACY,
    TRAIN_QUERY_LOSS,
    Scores,
    Tracker,
    WorkerRow,
    score_text,
)

Mode = Literal["auto", "live", "plain", "json"]
REPORT_EVERY_S = 10.0
_LOUD: tuple[str, ...] = ("warning", *FAULT_KINDS, "failed")
_BARS = "▁▂▃▄▅▆▇█"


def open_terminal(
    mode: Mode,
    *,
    quiet: bool,
    title: str,
    steps: int,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime] = datetime.now,
) -> Tracker:
    """The tracker that shows a run of `steps` on `stream` (stderr when None).

    `auto` is `live` on a terminal and `plain` elsewhere. `quiet` leaves warnings, lost workers and failures.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"log format «{mode}» is none of {', '.join(get_args(Mode))}")
    stream = sys.stderr if stream is None else stream
    outlet = Outlet(stream)
    progress = Progress(title, steps)
    if mode == "auto":
        mode = "live" if outlet.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if mode == "json":
        return JsonTerminal(outlet, progress, quiet=quiet, clock=clock, now=now)
    if mode == "plain" or quiet:
        return PlainTerminal(outlet, progress, quiet=quiet, clock=clock, now=now)
    from raymeta.runs.live import LiveTerminal  # rich: only where it is shown

    return LiveTerminal(outlet, progress, clock=clock, capture_stderr=stream is sys.stderr)


class Progress:
    """Where a run is: the latest step, metrics, validation and workers, and the time left."""

    def __init__(self, title: str, steps: int) -> None:
        self.title = clean(title)
        self.steps = steps
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.scores: Scores | None = None
        self.rows: tuple[WorkerRow, ...] = ()
        self._pace: deque[tuple[float, int]] = deque(maxlen=60)

    def update(self, step: int, metrics: Mapping[str, float], now_s: float) -> None:
        self.step = step
        self.metrics = dict(metrics)
        if not self._pace or now_s - self._pace[-1][0] >= 1.0:
            self._pace.append((now_s, step))

    def left_s(self) -> float | None:
        """Seconds left at the pace of the last minute or so; None before there is a pace."""
        if len(self._pace) < 2:
            return None
        (begin_s, begin), (end_s, end) = self._pace[0], self._pace[-1]
        return (self.steps - self.step) * (end_s - begin_s) / (end - begin) if end > begin else None

    def pieces(self) -> list[str]:
        """`query loss 0.412`, `query accuracy 87.10 %`, `312 tasks/s`, `1:12:30 left`: what is known of these."""
        pieces = []
        if TRAIN_QUERY_LOSS in self.metrics:
            pieces.append(f"query loss {self.metrics[TRAIN_QUERY_LOSS]:.4g}")
        if TRAIN_QUERY_ACCURACY in self.metrics:
            pieces.append("query " + score_text("accuracy", self.metrics[TRAIN_QUERY_ACCURACY]))
        if TASKS_PER_S in self.metrics:
            pieces.append(f"{self.metrics[TASKS_PER_S]:.3g} tasks/s")
        left_s = self.left_s()
        if left_s is not None:
            pieces.append(f"{duration(left_s)} left")
        return pieces


class PlainTerminal:
    """One stamped line every 10 s; events and validations at once."""

    def __init__(
        self,
        outlet: Outlet,
        progress: Progress,
        *,
        quiet: bool,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._outlet, self._progress, self._quiet, self._clock, self._now = outlet, progress, quiet, clock, now
        self._reported_s = -math.inf
        if not quiet:
            self._line(f"{progress.title}, {progress.steps:,} steps")

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        now_s = self._clock()
        self._progress.update(step, metrics, now_s)
        if self._quiet or (now_s - self._reported_s < REPORT_EVERY_S and step != self._progress.steps):
            return
        self._reported_s = now_s
        self._line("  ".join([step_text(self._progress), *self._progress.pieces()]))

    def validation(self, step: int, scores: Scores) -> None:
        if not self._quiet:
            self._line(f"validation at step {step:,}: {validation_text(scores)}  {adaptation_text(scores)}")

    def event(self, kind: str, message: str, **fields: object) -> None:
        if not self._quiet or kind in _LOUD:
            self._line(f"{event_label(kind)}: {clean(message)}")

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        """Not shown; their coming and going are events."""

    def close(self) -> None:
        self._outlet.drain()

    def _line(self, text: str) -> None:
        self._outlet.write(f"{self._now():%Y-%m-%d %H:%M:%S}  {text}\n")


class JsonTerminal:
    """One JSON object a line: {time, type: step|validation|event|workers, ...}; steps and workers every 10 s."""

    def __init__(
        self,
        outlet: Outlet,
        progress: Progress,
        *,
        quiet: bool,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._outlet, self._progress, self._quiet, self._clock, self._now = outlet, progress, quiet, clock, now
        self._reported_s = {"step": -math.inf, "workers": -math.inf}

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._progress.update(step, metrics, self._clock())
        if self._due("step") or step == self._progress.steps:
            left_s = self._progress.left_s()
            self._object("step", {"step": step, "steps": self._progress.steps, "left_s": left_s, **metrics})

    def validation(self, step: int, scores: Scores) -> None:
        self._object("validation", {"step": step, **scores._asdict()})

    def event(self, kind: str, message: str, **fields: object) -> None:
        self._object("event", {**fields, "kind": kind, "message": message}, loud=kind in _LOUD)

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        if self._due("workers"):
            self._object("workers", {"workers": [row._asdict() for row in rows]})

    def close(self) -> None:
        self._outlet.drain()

    def _due(self, what: str) -> bool:
        now_s = self._clock()
        if now_s - self._reported_s[what] < REPORT_EVERY_S:
            return False
        self._reported_s[what] = now_s
        return True

    def _object(self, type_: str, content: Mapping[str, object], *, loud: bool = False) -> None:
        if not self._quiet or loud:
            time_ = self._now().astimezone().isoformat(timespec="seconds")
            self._outlet.write(
                json_text({"time": time_, "type": type_, "title": self._progress.title, **content}) + "\n"
            )


def step_text(progress: Progress) -> str:
    share = 100 * progress.step / progress.steps if progress.steps else 100.0
    return f"step {progress.step:,}/{progress.steps:,} ({share:.0f} %)"


def validation_text(scores: Scores) -> str:
    """`accuracy 97.31 ± 0.42 % over 600 episodes`."""
    return f"{score_text(scores.name, scores.value, scores.ci95)} over {scores.episodes:,} episodes"


def adaptation_text(scores: Scores) -> str:
    """`adapting 20.10 -> 97.31 % ▁▅▇█`: before, after, and each inner step between."""
    if not scores.per_step:
        return ""
    before, after = scores.per_step[0], scores.per_step[-1]
    span = f"{100 * before:.2f} -> {100 * after:.2f} %" if scores.name == "accuracy" else f"{before:.4g} -> {after:.4g}"
    return f"adapting {span} {sparkline(scores.per_step)}"


def sparkline(values: Sequence[float]) -> str:
    """A bar a value, between the smallest and the largest; `?` for what is not finite."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((v - low) * scale)] if math.isfinite(v) else "?" for v in values)


def duration(seconds: float) -> str:
    """`1:12:30`, or `3 d 4:05:00`."""
    days, rest = divmod(round(max(seconds, 0.0)), 86_400)
    clock_text = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock_text}" if days else clock_text


def event_label(kind: str) -> str:
    return kind.replace("_", " ")


def clean(text: str) -> str:
    """Without control characters, so that no name or message can steer a terminal; further lines are indented."""
    return "".join(c if c.isprintable() else "\n    " if c == "\n" else " " if c == "\t" else "" for c in text.strip())
