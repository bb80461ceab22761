"""Who runs shards: one interface for this process and for Ray actors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from raymeta.engine.worker import FloatArray, Job, Result
from raymeta.keys import Shard
from raymeta.runs.tracker import WorkerRow


class Executor(Protocol):
    """Computes shards somewhere. Laws: every shard's result comes exactly once, in any order, with the same bits."""

    def map(self, job: Job, payload: FloatArray, shards: Sequence[Shard]) -> Iterator[tuple[int, Result]]:
        """Results with their positions in `shards`, as they come; `payload` goes to each node once."""

    def workers(self) -> list[WorkerRow]:
        """Who has computed how much so far."""

    def close(self) -> None:
        """Release processes and devices."""
