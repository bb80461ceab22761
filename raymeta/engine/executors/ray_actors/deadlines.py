"""When a shard is late, when its worker hangs, and when a second copy is worth computing. Nothing here knows Ray.

Three rules, each in terms of the usual time, which is the median of the last shards of the same kind of job:

- A shard is late after `LATE_FACTOR` times the usual time plus `LATE_S` seconds. A second worker then computes a copy,
  provided that no shard is still waiting for a worker. The first answer counts.
- A worker hangs when its shard takes longer than `HUNG_FACTOR` times the usual time, but never before `HUNG_LEAST_S`
  seconds. The worker is then given up, and its shards are computed again.
- Until the first shard has finished there is no usual time: no shard is late, and a worker hangs after `HUNG_FIRST_S`
  seconds. So does a worker that may be compiling, whatever time a shard takes others.

A person's `shard_timeout` replaces the second and the third rule.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from typing import Final, Literal

LATE_FACTOR: Final = 3.0
LATE_S: Final = 0.5
HUNG_FACTOR: Final = 20.0
HUNG_LEAST_S: Final = 60.0
HUNG_FIRST_S: Final = 600.0
REMEMBERED: Final = 64
"""The usual time is that of so many shards."""

Decision = Literal["wait", "copy", "give_up"]


class Deadlines:
    """Remembers how long shards took, and decides what to do about one that takes long.

    Ages are seconds since a shard was given to its worker. A worker computes its shards one after another, so an age is
    compared with `depth` usual times: `depth` counts the shards that the worker had then, this one included.
    """

    def __init__(self, shard_timeout_s: float | None = None) -> None:
        self._shard_timeout_s = shard_timeout_s
        self._took_s: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    def finished(self, kind: str, age_s: float, depth: int) -> None:
        """A shard came back. One that compiled first says nothing about the usual time: leave it out."""
        self._took_s[kind].append(age_s / depth)

    def usual_s(self, kind: str) -> float | None:
        """The time that a shard takes usually; None until one has finished."""
        times = self._took_s[kind]
        return statistics.median(times) if times else None

    def hung_after_s(self, kind: str, depth: int = 1, *, compiling: bool = False) -> float:
        """The age at which a shard's worker counts as hung; `compiling`: whether it may be, for this or another."""
        if self._shard_timeout_s is not None:
            return self._shard_timeout_s * depth
        usual_s = None if compiling else self.usual_s(kind)
        return HUNG_FIRST_S if usual_s is None else max(HUNG_LEAST_S, HUNG_FACTOR * usual_s * depth)

    def is_late(self, kind: str, age_s: float, depth: int) -> bool:
        """Whether a shard takes much longer than usual."""
        usual_s = self.usual_s(kind)
        return usual_s is not None and age_s >= LATE_FACTOR * usual_s * depth + LATE_S

    def decide(
        self, kind: str, age_s: float, depth: int, *, copies: int, waiting: int, compiling: bool = False
    ) -> Decision:
        """What to do about a shard that has not come back.

        `copies` counts the workers that compute the shard for somebody who waits: 0 where its result is not needed any
        more. `waiting` counts the shards that no worker has yet; they go before copies.
        """
        if age_s > self.hung_after_s(kind, depth, compiling=compiling):
            return "give_up"
        return "copy" if copies == 1 and not waiting and self.is_late(kind, age_s, depth) else "wait"
