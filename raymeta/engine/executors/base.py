"""Who runs shards: one interface for this process and for Ray actors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from raymeta.engine.job import Job, Payload, Result, Rows
from raymeta.keys import Block, Shard
from raymeta.trackers.base import WorkerRow


class Executor(Protocol):
    """Computes shards somewhere. Laws: every shard's result comes exactly once, in any order, with the same bits."""

    concurrent: bool
    """Whether work goes on elsewhere while the driver does something else."""
    waited_s: float
    """Seconds that the caller was kept by work, its own or others', since the start."""

    def map(
        self,
        job: Job,
        payload: Payload,
        shards: Sequence[Shard],
        *,
        rows: Sequence[Rows] | None = None,
        upcoming: Sequence[Shard] = (),
        urgent: bool = True,
    ) -> Iterator[tuple[Block, Result]]:
        """Results with the blocks of `shards` they are sums of, as they come; `payload` goes to each node once, and
        of `rows` each shard gets its own.

        Gradients of a block may be summed before they come; scores come shard by shard. The work begins with the call
        where that is possible; `urgent` work goes first. `upcoming` are the shards of the step after, whose episodes
        workers may prepare. Raises `OutOfMemory` where memory does not suffice for so many tasks at once as `job`
        says; a new call may say less.
        """

    def unfinished(self) -> int:
        """Shards of all calls of `map` whose results have not come yet."""

    def workers(self) -> list[WorkerRow]:
        """Who has computed how much so far."""

    def describe(self) -> dict[str, object]:
        """Where the work is done, for the run's files."""

    def close(self) -> None:
        """Release processes and devices."""


class Tell(Protocol):
    """Called with an event's kind and message, and details for programs."""

    def __call__(self, kind: str, message: str, **fields: object) -> None: ...


def tell_compiled(tell: Tell, result: Result) -> None:
    """Say what compiling has cost, where this shard was the first of its kind on a worker."""
    if result.compile_s:
        tasks = result.shard.num_tasks
        message = f"a shard of {tasks} tasks was compiled in {result.compile_s:.0f} s"
        tell("compiled", message, seconds=result.compile_s, pid=result.pid)


def silent(kind: str, message: str, **fields: object) -> None:
    """Ignores every event."""
