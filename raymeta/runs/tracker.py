"""What a run reports while it trains, and to whom: the names of all metrics, and the tracker every listener is."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol

from raymeta.errors import RaymetaWarning
from raymeta.redact import without_secrets
from raymeta.signals import raise_if_interrupt

TRAIN_QUERY_LOSS: Final = "train/query_loss"
TRAIN_QUERY_ACCURACY: Final = "train/query_accuracy"
TRAIN_SUPPORT_LOSS: Final = "train/support_loss"
OUTER_GRAD_NORM: Final = "outer/grad_norm"
OUTER_LR: Final = "outer/lr"
STEP_S: Final = "time/step_s"
DRIVER_BUSY: Final = "time/driver_busy"
TASKS_PER_S: Final = "tasks_per_s"
VAL_LOSS: Final = "val/loss"
VAL_ACCURACY: Final = "val/accuracy"
VAL_ACCURACY_CI95: Final = "val/accuracy_ci95"
VAL_MSE: Final = "val/mse"
VAL_MSE_CI95: Final = "val/mse_ci95"

METRICS: Final = (
    TRAIN_QUERY_LOSS,
    TRAIN_QUERY_ACCURACY,
    TRAIN_SUPPORT_LOSS,
    OUTER_GRAD_NORM,
    OUTER_LR,
    STEP_S,
    DRIVER_BUSY,
    TASKS_PER_S,
    VAL_LOSS,
    VAL_ACCURACY,
    VAL_ACCURACY_CI95,
    VAL_MSE,
    VAL_MSE_CI95,
)
"""Every metric there is; columns of `metrics.jsonl`, of data frames and of TensorBoard are these."""

ScoreName = Literal["accuracy", "mse"]

EVENT_KINDS: Final = (
    "started",
    "resumed",
    "checkpoint",
    "validation",
    "best",
    "cluster",
    "data",
    "vectorize",
    "compiled",
    "chunk_halved",
    "worker_lost",
    "worker_hung",
    "worker_preempted",
    "worker_joined",
    "workers_waiting",
    "shard_copied",
    "shard_retried",
    "result_lost",
    "note",
    "warning",
    "stopped",
    "finished",
    "failed",
)
"""Every kind of event there is."""
FAULT_KINDS: Final = (
    "chunk_halved",
    "worker_lost",
    "worker_hung",
    "worker_preempted",
    "workers_waiting",
    "shard_retried",
    "result_lost",
)
"""Events that tell of something that went wrong on a worker; the run goes on."""


class Scores(NamedTuple):
    """One evaluation: the metric's mean over episodes, with the half-width of its 95 % interval.

    `per_step` [inner steps + 1] holds the mean before adapting and after each inner step. Accuracies lie in [0, 1].
    """

    name: ScoreName
    per_step: list[float]
    value: float
    ci95: float
    episodes: int
    others: Mapping[str, float] = MappingProxyType({})
    """means of a person's own metrics after the last inner step, by name"""

    def metrics(self) -> dict[str, float]:
        """As metrics of the validation split."""
        own = {f"val/{name}": value for name, value in self.others.items()}
        return {f"val/{self.name}": self.value, f"val/{self.name}_ci95": self.ci95} | own


class WorkerRow(NamedTuple):
    """One worker since the run began: tasks computed, its rate while computing, how often it was started again, the
    shards it has been given, and the memory it holds."""

    name: str
    node: str
    pid: int
    tasks: int
    tasks_per_s: float
    restarts: int
    queue: int = 0
    rss_bytes: int = 0


class Tracker(Protocol):
    """A listener of a run. All calls come from the driver's thread."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """For every outer step, in order, soon after it; names are from `METRICS`."""

    def event(self, kind: str, message: str, **fields: object) -> None:
        """Something notable, of a kind in `EVENT_KINDS`; `fields` are details for programs."""

    def validation(self, step: int, scores: Scores) -> None:
        """Scores on the validation split after `step`; no `validation` event is sent besides."""

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        """The state of all workers."""

    def close(self) -> None:
        """The run is over for this process; called once, last."""


class PythonWarnings:
    """Tells a Python caller, who sees no terminal of ours, what a person should know."""

    def event(self, kind: str, message: str, **fields: object) -> None:
        if kind in ("note", "warning", *FAULT_KINDS):
            warnings.warn(message, RaymetaWarning, stacklevel=2)

    def step(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def validation(self, step: int, scores: Scores) -> None: ...

    def workers(self, rows: Sequence[WorkerRow]) -> None: ...

    def close(self) -> None: ...


TOGETHER_S = 0.05
"""Steps that end within so many seconds are told together: the next step after that tells of all before."""


class Trackers:
    """Several trackers as one. A tracker that raises is switched off, the others are told once, and the run goes on.

    Steps that come faster than every `together_s` seconds are told some at once, and before whatever else is told: code
    that runs again and again is several times as fast as code between whose calls a small model was computed. Before a
    step that takes long they wait for its end; where workers may hang, give 0.
    """

    def __init__(self, trackers: Iterable[Tracker], *, together_s: float = TOGETHER_S) -> None:
        self._active = tuple(trackers)
        self._all = self._active
        self._together_s = together_s
        self._steps: deque[tuple[int, Mapping[str, float]]] = deque()  # not told yet
        self._telling = False
        self._told_s = -math.inf

    def add(self, tracker: Tracker) -> None:
        """Tell `tracker` too, from now on."""
        self.tell_steps()
        self._active += (tracker,)
        self._all += (tracker,)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._steps.append((step, metrics))
        if time.monotonic() - self._told_s >= self._together_s:
            self.tell_steps()

    def tell_steps(self) -> None:
        """Tell now of the steps that were not told yet, as before something that takes long or must come later."""
        if self._telling or not self._steps:  # what a tracker tells while it hears of a step comes at that step
            return
        self._telling = True
        try:
            while self._steps:
                told = self._steps.popleft()
                self._tell(lambda tracker, told=told: tracker.step(*told))  # type: ignore[misc]
        finally:
            self._telling = False
        self._told_s = time.monotonic()

    def event(self, kind: str, message: str, **fields: object) -> None:
        self.tell_steps()
        message = without_secrets(message)  # TensorBoard and terminal show it too
        self._tell(lambda tracker: tracker.event(kind, message, **fields))

    def validation(self, step: int, scores: Scores) -> None:
        self.tell_steps()
        self._tell(lambda tracker: tracker.validation(step, scores))

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        self.tell_steps()
        self._tell(lambda tracker: tracker.workers(rows))

    def close(self) -> None:
        """Close all of them, the switched-off ones too: they may hold files and threads."""
        self.tell_steps()
        for tracker in self._all:
            was_active = self._is_active(tracker)
            self._remove(tracker)
            try:
                tracker.close()
            except Exception as error:
                raise_if_interrupt(error)
                if was_active:  # a switched-off one was reported already
                    self._warn(tracker, error)

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        active = self._active
        for tracker in active:
            if active is not self._active and not self._is_active(tracker):
                continue  # switched off meanwhile, by a warning about another
            try:
                call(tracker)
            except Exception as error:
                raise_if_interrupt(error)
                self._remove(tracker)
                self._warn(tracker, error)

    def _warn(self, tracker: Tracker, error: Exception) -> None:
        text = (
            f"{type(tracker).__name__} is switched off, the run goes on without it: "
            f"{type(error).__name__}: {error or 'no message'}"
        )
        if self._active:
            self.event("warning", text)
        else:
            warnings.warn(text, RaymetaWarning, stacklevel=2)

    def _is_active(self, tracker: Tracker) -> bool:
        return any(tracker is active for active in self._active)

    def _remove(self, tracker: Tracker) -> None:
        self._active = tuple(active for active in self._active if active is not tracker)


def score_text(name: str, value: float, ci95: float | None = None) -> str:
    """For people: `accuracy 97.31 ± 0.42 %`, `mse 0.0312 ± 0.0021`; of a single episode there is no interval."""
    if ci95 is not None and not math.isfinite(ci95):
        ci95 = None
    if name.endswith("accuracy"):
        interval = "" if ci95 is None else f" ± {100 * ci95:.2f}"
        return f"{name} {100 * value:.2f}{interval} %"
    interval = "" if ci95 is None else f" ± {ci95:.3g}"
    return f"{name} {value:.4g}{interval}"
