"""How many tasks of a shard are computed at once, and what happens where that is too many for the memory.

Sums change in their last bits with it, so it is the driver that decides, for all workers alike, and every change is
recorded with its step: the bits of a step follow from the configuration and the recorded changes up to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from raymeta.engine.executors.base import Tell
from raymeta.engine.job import JobKind
from raymeta.errors import OutOfMemory


class Halving(NamedTuple):
    """From the work of outer step `step` on, `job` computes `chunk_size` tasks at once."""

    step: int
    job: JobKind
    chunk_size: int

    @property
    def message(self) -> str:
        what = "meta-gradients" if self.job == "gradient" else "scores"
        plural = "s are" if self.chunk_size > 1 else " is"
        return (
            f"out of memory: from step {self.step} on, {self.chunk_size} task{plural} computed at once for {what}, on "
            "every worker; the last bits of results change with it (chunk_size)"
        )


@dataclass
class Chunks:
    """The number of tasks at once for each kind of job and step: `size` at first, by default a whole shard, and less
    after each of `halvings`."""

    size: int = 2**31
    halvings: list[Halving] = field(default_factory=list)

    def at(self, job: JobKind, step: int) -> int:
        """Tasks computed at once in step `step`."""
        return min([self.size, *(h.chunk_size for h in self.halvings if h.job == job and h.step <= step)])

    def halve(self, job: JobKind, step: int, error: OutOfMemory) -> Halving:
        """Half as many from `step` on; raises `error` where one task was too many."""
        if error.num_tasks <= 1:
            raise error
        halving = Halving(step, job, max(1, min(self.at(job, step), error.num_tasks) // 2))
        self.halvings.append(halving)
        return halving


def tell_halving(tell: Tell, halving: Halving) -> None:
    """Say that memory did not suffice, and from which step on results have other bits."""
    tell("chunk_halved", halving.message, since_step=halving.step, job=halving.job, chunk_size=halving.chunk_size)
