"""Progress for people and programs: a live display on a terminal, stamped lines in a log, or JSON lines."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, TextIO, get_args

from raymeta.errors import ConfigError
from raymeta.system.files import json_text
from raymeta.system.streams import QuietStream
from raymeta.system.text import clean
from raymeta.trackers.base import Tracker, WorkerRow
from raymeta.trackers.names import FAULT_KINDS
from raymeta.trackers.progress import Progress, adaptation_text, event_label, step_text
from raymeta.trackers.scores import Scores

Mode = Literal["auto", "live", "plain", "json"]
REPORT_EVERY_S = 10.0
_LOUD: tuple[str, ...] = ("warning", *FAULT_KINDS, "failed")


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
    outlet = QuietStream(stream)
    progress = Progress(title, steps)
    if mode == "auto":
        mode = "live" if outlet.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if mode == "json":
        return JsonTerminal(outlet, progress, quiet=quiet, clock=clock, now=now)
    if mode == "plain" or quiet:
        return PlainTerminal(outlet, progress, quiet=quiet, clock=clock, now=now)
    from raymeta.trackers.live import LiveTerminal  # rich: only where it is shown

    return LiveTerminal(outlet, progress, clock=clock, capture_stderr=stream is sys.stderr)


class PlainTerminal:
    """One stamped line every 10 s; events and validations at once."""

    def __init__(
        self,
        outlet: QuietStream,
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
            self._line(f"validation at step {step:,}: {scores.text}  {adaptation_text(scores)}".rstrip())

    def event(self, kind: str, message: str, **fields: object) -> None:
        if not self._quiet or kind in _LOUD:
            self._line(f"{event_label(kind)}: {clean(message)}")

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        """Not shown; their coming and going are events."""

    def close(self) -> None:
        self._outlet.drain()

    def _line(self, text: str) -> None:
        self._outlet.write(f"{self._now():%Y-%m-%d %H:%M:%S}  {text.rstrip()}\n")


class JsonTerminal:
    """One JSON object a line: {time, type: step|validation|event|workers, ...}; steps and workers every 10 s."""

    def __init__(
        self,
        outlet: QuietStream,
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
