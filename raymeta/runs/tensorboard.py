"""TensorBoard events, written by tensorboardX."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from raymeta.runs.tracker import Scores, WorkerRow

_DENSE_STEPS = 2_000


class TensorBoard:
    """Scalars of the metrics and texts of the events in `directory`, the run's `tb`.

    In a folder that holds events of an earlier attempt, the first step makes TensorBoard drop what that attempt wrote
    from there on. Steps beyond 2,000 are thinned in proportion: of step s, every (s // 1000)-th is written.
    """

    def __init__(self, directory: Path) -> None:
        self._resumed = any(directory.glob("events.out.tfevents.*"))
        self._directory = directory
        self._writer: SummaryWriter | None = None
        self._early: list[tuple[str, str]] = []  # events before the first step is known
        self._step = 0

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._step = step
        if step <= _DENSE_STEPS or step % (step // 1_000) == 0 or any(name.startswith("val/") for name in metrics):
            self._scalars(step, metrics)

    def validation(self, step: int, scores: Scores) -> None:
        self._scalars(step, scores.metrics())

    def event(self, kind: str, message: str, **fields: object) -> None:
        if self._writer is None:
            self._early.append((kind, message))
        else:
            self._writer.add_text(f"events/{kind}", message, self._step)

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        """Not shown: `workers.jsonl` and the dashboard have them."""

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, step: int, metrics: Mapping[str, float]) -> None:
        writer = self._writer or self._open(step)
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    def _open(self, first_step: int) -> SummaryWriter:
        self._step = first_step
        # Event files are named by the second: a quick resume must not overwrite the file of the attempt before.
        self._writer = SummaryWriter(
            str(self._directory),
            purge_step=first_step if self._resumed else None,
            filename_suffix=f".{os.getpid()}-{first_step}",
        )
        for kind, message in self._early:
            self._writer.add_text(f"events/{kind}", message, first_step)
        return self._writer
