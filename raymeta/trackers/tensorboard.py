"""TensorBoard events, written by tensorboardX."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import text

from raymeta.trackers.base import WorkerRow
from raymeta.trackers.scores import Scores, is_of_validation

_DENSE_STEPS = 2_000
_FLUSH_S = 5.0


class TensorBoard:
    """Scalars of the metrics and texts of the events in `directory`, the run's `tb`.

    In a folder that holds events of an earlier attempt, the first step makes TensorBoard drop what that attempt wrote
    from there on. Steps beyond 2,000 are thinned in proportion: of step s, every (s // 1000)-th is written.

    Events are written from the caller's thread: tensorboardX's usual writer has one of its own, which on a full disk
    would die with a traceback that nobody could catch.
    """

    def __init__(self, directory: Path) -> None:
        self._resumed = any(directory.glob("events.out.tfevents.*"))
        self._directory = directory
        self._writer: EventsWriter | None = None
        self._early: list[tuple[str, str]] = []  # events before the first step is known
        self._step = 0
        self._flushed = 0.0

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._step = step
        if step <= _DENSE_STEPS or step % (step // 1_000) == 0 or any(is_of_validation(name) for name in metrics):
            self._scalars(step, metrics)

    def validation(self, step: int, scores: Scores) -> None:
        self._scalars(step, scores.metrics())

    def event(self, kind: str, message: str, **fields: object) -> None:
        if self._writer is None:
            self._early.append((kind, message))
        else:
            self._write(Event(summary=text(f"events/{kind}", message), step=self._step))

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        """Not shown: `workers.jsonl` and the dashboard have them."""

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._writer is None:
            self._open(step)
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(Event(summary=Summary(value=values), step=step))

    def _write(self, event: Event) -> None:
        assert self._writer is not None
        event.wall_time = time.time()
        self._writer.write_event(event)
        if event.wall_time - self._flushed > _FLUSH_S:
            self._flushed = event.wall_time
            self._writer.flush()

    def _open(self, first_step: int) -> None:
        self._directory.mkdir(exist_ok=True)
        # Event files are named by the second: a quick resume must not overwrite the file of the attempt before.
        self._writer = EventsWriter(str(self._directory / "events"), f".{os.getpid()}-{first_step}")
        if self._resumed:  # both together make TensorBoard drop later steps of earlier files
            self._write(Event(file_version="brain.Event:2", step=first_step))
            self._write(Event(session_log=SessionLog(status=SessionLog.START), step=first_step))
        for kind, message in self._early:
            self._write(Event(summary=text(f"events/{kind}", message), step=first_step))
