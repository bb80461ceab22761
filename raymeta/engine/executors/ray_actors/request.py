"""The work of one call of `map`: shards still to do, given away, and done."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raymeta.engine.executors.ray_actors.pool import Seat
from raymeta.engine.job import Job, Result, Rows
from raymeta.errors import OutOfMemory
from raymeta.keys import Block, Shard


@dataclass(eq=False)
class Call:
    """One shard given to one actor. `depth` calls, this one included, were before it there."""

    request: Request
    position: int
    seat: Seat
    actor: Any
    info: Any
    vector: Any
    depth: int
    submitted: float
    obsolete: bool = False  # another copy came first, or nobody waits any more

    def age(self, now: float) -> float:
        return now - self.submitted

    @property
    def kind(self) -> tuple[str, int]:
        """What calls of one graph have in common."""
        return self.request.job.name, self.request.shards[self.position].num_tasks


class Todo:
    """Positions to give away. Each has a preferred owner: who prepared it, or the node that will sum it.

    An owner is given its own first, then those of nobody (in pieces of 2**level, aligned), then others' last ones.
    """

    def __init__(self, num_shards: int, owners: Mapping[int, Hashable], level: int) -> None:
        self._own: dict[Hashable, deque[int]] = {}
        self._first: deque[int] = deque()
        pieces: dict[int, deque[int]] = {}
        for position in range(num_shards):
            if position in owners:
                self._own.setdefault(owners[position], deque()).append(position)
            else:
                pieces.setdefault(position >> level, deque()).append(position)
        self._free = deque(pieces.values())
        self._count = num_shards

    def __len__(self) -> int:
        return self._count

    def take(self, owner: Hashable) -> int:
        """The next position for `owner`; there must be one."""
        self._count -= 1
        if self._first:
            return self._first.popleft()
        if own := self._own.get(owner):
            return own.popleft()
        if self._free:
            self._own[owner] = self._free.popleft()
            return self._own[owner].popleft()
        return max(self._own.values(), key=len).pop()

    def put_back(self, position: int) -> None:
        """A position whose computation was lost, to be given away before all others."""
        self._count += 1
        self._first.append(position)


@dataclass(eq=False)
class Request:
    """Shards of one job on one set of parameters."""

    number: int
    job: Job
    payload: Any  # reference
    payload_bytes: int
    shards: Sequence[Shard]
    upcoming: Sequence[Shard]
    todo: Todo
    level: int | None  # of the blocks that are summed on their node; None for no such sums
    rows: Sequence[Rows] | None = None  # of the tasks of each shard
    results: deque[tuple[Block, Result]] = field(default_factory=deque)
    given: dict[int, list[Call]] = field(default_factory=dict)
    computed: dict[int, tuple[Call, Result]] = field(default_factory=dict)  # waiting for the rest of their block
    blocks: dict[int, Block] = field(default_factory=dict)  # of positions whose block is not that of `level`
    failures: Counter[int] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0  # that workers computed
    failure: OutOfMemory | None = None  # for who waits for it
    forgotten: bool = False  # nobody waits for the rest

    def __post_init__(self) -> None:
        self.remaining = len(self.shards)

    def deliver(self, block: Block, result: Result) -> None:
        self.remaining -= len(block.positions(len(self.shards)))
        self.results.append((block, result))

    def upcoming_at(self, position: int) -> Shard | None:
        return self.upcoming[position] if position < len(self.upcoming) else None

    def complete_block(self, position: int) -> Block | None:
        """The block of `position`, if all of it is computed and waits."""
        assert self.level is not None
        block = self.blocks.get(position, Block(self.level, position >> self.level))
        return block if all(p in self.computed for p in block.positions(len(self.shards))) else None

    def compute_again(self, block: Block) -> None:
        """The sum of `block` was lost, and perhaps its shards. The rest of a larger block may be summed already."""
        for position in block.positions(len(self.shards)):
            self.blocks[position] = block
            self.todo.put_back(position)
