"""Names of the work: a task is a key, a shard is a fixed slice of the meta-batch.

Nothing random is ever sent or stored. A `TaskKey` seeds a counter-based generator (Philox 4x64), so any process
rebuilds the same episode. The 256-bit counter holds (draws, index, step, split) in one 64-bit word each, and the
128-bit key holds (seed, stream): two different keys share no draw for 2**64 draws.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Literal, NamedTuple, get_args, overload

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

Stream = Literal["episode", "noise", "augmentation", "mixing"]
STREAMS: tuple[Stream, ...] = get_args(Stream)


class TaskKey(NamedTuple):
    """One task: everything random about it follows from these four values."""

    seed: int
    split: Split
    step: int
    index: int  # type: ignore[assignment]  # shadows tuple.index, which no one calls here

    def generator(self, stream: Stream = "episode") -> np.random.Generator:
        """Generator of this task's draws.

        `episode` draws classes, images and labels; `noise` draws what else an algorithm needs (the order of
        mini-batches, a new head); `augmentation` draws how training images are changed, and `mixing` how tasks are made
        of others. None ever shifts another.
        """
        key = np.array([self.seed, STREAMS.index(stream)], dtype=np.uint64)
        counter = np.array([0, self.index, self.step, SPLITS.index(self.split)], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def torch_seed(self) -> int:
        """Seed of torch's generator, for dropout and the like: a hash, a tenth of the time of a generator."""
        words = (self.seed, SPLITS.index(self.split), self.step, self.index)
        return int.from_bytes(hashlib.blake2b(struct.pack("<4Q", *words), digest_size=8).digest(), "little")


def uniforms(keys: Sequence[TaskKey], n: int, stream: Stream = "episode") -> NDArray[np.float64]:
    """What `key.generator(stream).random(n)` gives, for each of `keys` [T, n], ten times as fast."""
    philox = np.random.Philox(key=0)
    generator = np.random.Generator(philox)
    place: dict[str, tuple[int, ...]] = {}
    state: Any = {"bit_generator": "Philox", "buffer": (0,) * 4, "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}
    state["state"], word = place, STREAMS.index(stream)
    drawn = np.empty((len(keys), n))
    for row, (seed, split, step, index) in zip(drawn, keys, strict=True):
        place["counter"], place["key"] = (0, index, step, SPLITS.index(split)), (seed, word)
        philox.state = state
        generator.random(out=row)
    return drawn


class Shard(NamedTuple):
    """The tasks `start <= index < stop` of one step: the unit of distributed work."""

    seed: int
    split: Split
    step: int
    start: int
    stop: int

    def keys(self) -> ShardKeys:
        return ShardKeys(self)

    @property
    def num_tasks(self) -> int:
        return self.stop - self.start


class ShardKeys(Sequence[TaskKey]):
    """The keys of a shard's tasks, each made when it is asked for: most shards need only the first."""

    __slots__ = ("_shard",)

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    def __len__(self) -> int:
        return self._shard.num_tasks

    def __iter__(self) -> Iterator[TaskKey]:
        seed, split, step, start, stop = self._shard
        fields = zip(repeat(seed), repeat(split), repeat(step), range(start, stop))
        return map(tuple.__new__, repeat(TaskKey), fields)  # a third of the time of calling the class

    @overload
    def __getitem__(self, place: int) -> TaskKey: ...
    @overload
    def __getitem__(self, place: slice) -> list[TaskKey]: ...
    def __getitem__(self, place: int | slice) -> TaskKey | list[TaskKey]:
        seed, split, step, start, stop = self._shard
        indices = range(start, stop)[place]
        if isinstance(indices, range):
            return [TaskKey(seed, split, step, index) for index in indices]
        return TaskKey(seed, split, step, indices)


class Block(NamedTuple):
    """The shards `index * 2**level <= position < (index + 1) * 2**level` of one step: a node of the fixed tree."""

    level: int
    index: int  # type: ignore[assignment]

    def positions(self, num_shards: int) -> range:
        """Positions of its shards among the step's `num_shards`."""
        return range(self.index << self.level, min(num_shards, (self.index + 1) << self.level))

    def halves(self) -> tuple[Block, Block]:
        """The two blocks it is the sum of; the second may hold no shard."""
        return Block(self.level - 1, 2 * self.index), Block(self.level - 1, 2 * self.index + 1)


@lru_cache(maxsize=2)  # a step is planned twice: as the one after, and when its turn has come
def plan(*, seed: int, split: Split, step: int, num_tasks: int, shard_size: int) -> tuple[Shard, ...]:
    """Cut `num_tasks` tasks into shards of `shard_size` (the last may be shorter), whoever will compute them."""
    starts = range(0, num_tasks, shard_size)
    return tuple(Shard(seed, split, step, start, min(start + shard_size, num_tasks)) for start in starts)
