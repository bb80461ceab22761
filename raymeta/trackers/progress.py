"""How far a run is, and the words that terminals show it with."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

from raymeta.system.text import clean, duration
from raymeta.trackers.axes import axis_of
from raymeta.trackers.base import WorkerRow
from raymeta.trackers.names import TASKS_PER_S, TRAIN_QUERY_ACCURACY, TRAIN_QUERY_LOSS
from raymeta.trackers.scores import Scores, score_text, span_text


class Progress:
    """Where a run is: the latest step, metrics, validation and workers, and the time left."""

    def __init__(self, title: str, steps: int) -> None:
        self.title = clean(title)
        self.steps = steps
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.scores: Scores | None = None
        self.rows: tuple[WorkerRow, ...] = ()
        self._overhead: deque[tuple[float, int]] = deque(maxlen=60)

    def update(self, step: int, metrics: Mapping[str, float], now_s: float) -> None:
        self.step = step
        self.metrics = dict(metrics)
        if not self._overhead or now_s - self._overhead[-1][0] >= 1.0:
            self._overhead.append((now_s, step))

    def left_s(self) -> float | None:
        """Seconds left at the pace of the last minute or so; None before there is a pace."""
        if len(self._overhead) < 2:
            return None
        (begin_s, begin), (end_s, end) = self._overhead[0], self._overhead[-1]
        return (self.steps - self.step) * (end_s - begin_s) / (end - begin) if end > begin else None

    def pieces(self) -> list[str]:
        """`query loss 0.412`, `query accuracy 87.10 %`, `312 tasks/s`, `1 h 12 min left`: what is known of these."""
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


def step_text(progress: Progress) -> str:
    share = 100 * progress.step / progress.steps if progress.steps else 100.0
    return f"step {progress.step:,}/{progress.steps:,} ({share:.0f} %)"


def adaptation_text(scores: Scores) -> str:
    """`adapting 20.10 -> 97.31 % ▁▅▇█`: before, after, and each inner step between; empty for a method without any."""
    axis = axis_of(scores.axis, scores.per_step)
    if axis is None:
        return ""
    span = span_text(scores.name, [scores.per_step[0], scores.per_step[-1]], " -> ")
    return f"{axis.doing} {span} {sparkline(scores.per_step)}"


def sparkline(values: Sequence[float]) -> str:
    """A bar a value, between the smallest and the largest; `?` for what is not finite."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((v - low) * scale)] if math.isfinite(v) else "?" for v in values)


def event_label(kind: str) -> str:
    return kind.replace("_", " ")


_BARS = "▁▂▃▄▅▆▇█"
