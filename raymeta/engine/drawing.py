"""When a worker builds episodes: when they are asked for, beside other work, or for some steps at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from raymeta.keys import Shard, TaskKey
from raymeta.tasks.base import Episode, Examples, TaskSet

PREPARED_SHARDS = 4
"""Shards whose episodes are built in advance beside other work; of more, they are built when they come."""
STEPS_AT_ONCE, BYTES_AT_ONCE = 32, 2**20
"""Steps whose episodes are built in one call, at most, and the memory that they may take."""


class Drawing:
    """Builds the episodes of shards. A task set is a pure function of its keys, so nobody sees when it was called.

    With `steps_at_once` the shards that are asked for are taken to be the same ones of step after step, as they are in
    one process, and small episodes are built for several steps in one call: for tiny tasks, calling costs more than
    building, and leaves the processor's caches to other code. `pinned` episodes lie in memory from which a GPU copies
    while it computes.
    """

    def __init__(self, tasks: TaskSet, *, steps_at_once: bool, pinned: bool = False) -> None:
        self._tasks = tasks
        self._pinned = pinned
        self._steps_at_once = steps_at_once
        self._ready: dict[Shard, Episode] = {}
        self._beside = ThreadPoolExecutor(1, "episodes")
        self._prepared: dict[Shard, Future[Episode]] = {}

    def take(self, shard: Shard, keys: Sequence[TaskKey]) -> Episode:
        """The episodes of `shard`, whose tasks have `keys`, with a leading task dimension."""
        if (prepared := self._prepared.pop(shard, None)) is not None:
            return prepared.result()
        if (ready := self._ready.pop(shard, None)) is not None:
            return ready
        drawn = self._draw(keys)
        if self._steps_at_once and shard.split == "train":
            self._draw_more(shard, _num_bytes(drawn))
        return drawn

    def prepare(self, shard: Shard) -> None:
        """Build the episodes of a shard that may come next beside other work."""
        for other in [s for s in self._prepared if s.step != shard.step]:
            del self._prepared[other]  # computed elsewhere, or never
        if len(self._prepared) < PREPARED_SHARDS:
            self._prepared[shard] = self._beside.submit(self._draw, list(shard.keys()))

    def close(self) -> None:
        """Drop what nobody took."""
        self._beside.shutdown(wait=False, cancel_futures=True)

    def _draw(self, keys: Sequence[TaskKey]) -> Episode:
        drawn = self._tasks.episodes(keys)
        if not self._pinned:
            return drawn
        sides = [[None if value is None else value.pin_memory() for value in side] for side in drawn]
        return Episode(*(Examples(*side) for side in sides))  # type: ignore[arg-type]

    def _draw_more(self, shard: Shard, num_bytes: int) -> None:
        """The episodes of the steps after `shard`, as many as are small together."""
        steps = min(STEPS_AT_ONCE, BYTES_AT_ONCE // max(1, num_bytes))
        later = [shard._replace(step=shard.step + 1 + ahead) for ahead in range(steps)]
        self._ready = {other: episode for other, episode in self._ready.items() if other.step >= shard.step}
        if not later:
            return
        try:
            drawn = self._draw([key for other in later for key in other.keys()])  # noqa: SIM118  a Shard's keys are tasks
        except Exception:  # of a task of a later step: it is raised when that step comes
            return
        self._ready.update(zip(later, _parts(drawn, shard.num_tasks), strict=True))


def _num_bytes(episodes: Episode) -> int:
    return sum(value.nbytes for side in episodes for value in side if value is not None)


def _parts(episodes: Episode, size: int) -> Iterator[Episode]:
    """Episodes [n · size, ...] as n times [size, ...]."""
    sides = [[None if value is None else torch.split(value, size) for value in side] for side in episodes]
    for i in range(len(episodes.support.x) // size):
        yield Episode(*(Examples(*(None if v is None else v[i] for v in side)) for side in sides))  # type: ignore[arg-type]
