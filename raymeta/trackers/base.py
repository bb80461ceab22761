"""What a run reports while it trains, and to whom: the tracker that every listener is, and several of them as one."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from raymeta.errors import RaymetaWarning
from raymeta.system.redact import without_secrets
from raymeta.system.signals import raise_if_interrupt
from raymeta.trackers.scores import Scores


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
