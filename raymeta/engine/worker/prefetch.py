"""When a worker builds episodes: when they are asked for, beside other work, or for some steps at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock

from raymeta.keys import Shard, TaskKey
from raymeta.tasks.base import TaskSet
from raymeta.tasks.border import sound_episodes
from raymeta.tasks.episodes import Episode, num_bytes_of, parts_of
from raymeta.tasks.mixing import Mixing

PREPARED_SHARDS = 4
"""Shards of a step whose episodes are built in advance beside other work; of more, they are built when they come."""
STEPS_AT_ONCE, BYTES_AT_ONCE, SECONDS_AT_ONCE = 32, 2**20, 0.05
"""Limits of what is built for later steps in one call: steps, all memory that waits, and the time that it may take."""


class Prefetch:
    """Builds the episodes of shards. A task set is a pure function of its keys, so nobody sees when it was called.

    With `steps_at_once` the shards that are asked for are taken to be the same ones of step after step, as they are in
    one process, and small episodes are built for several steps in one call: for tiny tasks, calling costs more than
    building, and leaves the processor's caches to other code. Training tasks are made of others as `mixing` says. What
    is drawn passes through `finish`, all that was drawn in one call at once. With `keeps_step` the episodes of a step
    stay for its later maps. The task set is called from two threads, but never from both at once.
    """

    def __init__(
        self,
        tasks: TaskSet,
        *,
        steps_at_once: bool = False,
        keeps_step: bool = False,
        finish: Callable[[Episode], Episode] = lambda e: e,
        mixing: Mixing | None = None,
    ) -> None:
        is_ours = type(tasks).__module__.startswith("raymeta.")
        self._episodes = tasks.episodes if is_ours else partial(sound_episodes, tasks)
        self._steps_at_once = steps_at_once
        self._finish = finish
        self._mixing = mixing
        self._keeps_step = keeps_step
        self._kept: dict[Shard, Episode] = {}
        self._step = -1
        self._ready: dict[Shard, tuple[Episode, int]] = {}  # with the bytes of each
        self._ready_bytes = 0
        self._beside = ThreadPoolExecutor(1, "episodes")
        self._one_at_a_time = Lock()
        self._prepared: dict[Shard, Future[Episode]] = {}

    def take(self, shard: Shard) -> Episode:
        """The episodes of `shard`, with a leading task dimension."""
        if not self._keeps_step:
            return self._take(shard)
        if shard not in self._kept:
            self._kept = {other: kept for other, kept in self._kept.items() if other.step == shard.step}
            self._kept[shard] = self._take(shard)
        return self._kept[shard]

    def _take(self, shard: Shard) -> Episode:
        if (prepared := self._prepared.pop(shard, None)) is not None:
            return prepared.result()
        if (ready := self._ready.pop(shard, None)) is not None:
            drawn, num_bytes = ready
            self._ready_bytes -= num_bytes
            return drawn
        began = time.perf_counter()
        drawn = self.draw(shard.keys())
        if self._steps_at_once and shard.split == "train":
            self._draw_more(shard, drawn, time.perf_counter() - began)
        return drawn

    def prepare(self, shard: Shard) -> None:
        """Build the episodes of a shard of the next step beside other work."""
        for other in [s for s in self._prepared if s.step < shard.step - 1]:
            del self._prepared[other]  # computed elsewhere, or never
        count = sum(other.step == shard.step for other in self._prepared)
        if count < PREPARED_SHARDS and shard not in self._prepared:
            self._prepared[shard] = self._beside.submit(self.draw, shard.keys())

    def close(self) -> None:
        """Drop what nobody took."""
        self._beside.shutdown(wait=False, cancel_futures=True)

    def draw(self, keys: Sequence[TaskKey]) -> Episode:
        """The episodes of tasks of any shard, once no other call draws."""
        with self._one_at_a_time:
            drawn = self._episodes(keys)
            if self._mixing is not None and keys[0].split == "train":
                drawn = self._mixing(drawn, keys, self._episodes)
        return self._finish(drawn)

    def _draw_more(self, shard: Shard, drawn: Episode, seconds: float) -> None:
        """The episodes of the steps after `shard`, as many as are little together; `drawn` are its own."""
        if shard.step != self._step:
            self._step = shard.step
            self._ready = {other: ready for other, ready in self._ready.items() if other.step >= shard.step}
            self._ready_bytes = sum(num_bytes for _, num_bytes in self._ready.values())
        num_bytes = num_bytes_of(drawn)
        room = BYTES_AT_ONCE - self._ready_bytes
        steps = min(STEPS_AT_ONCE, room // max(1, num_bytes), int(SECONDS_AT_ONCE / max(seconds, 1e-6)))
        later = [shard._replace(step=shard.step + 1 + ahead) for ahead in range(steps)]
        if not later:
            return
        try:
            more = self.draw([key for other in later for key in other.keys()])  # noqa: SIM118  a Shard's keys are tasks
            parts = ((part, num_bytes) for part in parts_of(more, drawn, steps))
            self._ready.update(zip(later, parts, strict=True))
        except Exception:  # of a task of a later step, or of tasks that differ: it is raised when its step comes
            self._steps_at_once = False
            return
        self._ready_bytes += steps * num_bytes
