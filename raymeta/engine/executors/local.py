"""The in-process executor: the same shards, here, without Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

from raymeta.engine.executors.base import Tell, silent, tell_compiled
from raymeta.engine.job import Job, Payload, Result, Rows
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.engine.worker.worker import Worker, resident_bytes
from raymeta.keys import Block, Shard
from raymeta.trackers.base import WorkerRow


class LocalExecutor:
    """One worker inside this process; beside a GPU it builds the next episodes, and nothing else goes on beside."""

    concurrent = False

    def __init__(self, blueprint: Blueprint, tell: Tell = silent) -> None:
        self._tell = tell
        self._worker = Worker(blueprint, steps_at_once=True)
        self._tasks, self.waited_s = 0, 0.0

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
        if self._worker.device.type == "cuda":  # this processor is free meanwhile
            for shard in upcoming:
                self._worker.prepare(shard)
        for position, shard in enumerate(shards):
            result = self._worker.run(job, payload, shard, None if rows is None else rows[position])
            tell_compiled(self._tell, result)
            self._tasks += shard.num_tasks
            self.waited_s += result.seconds
            yield Block(0, position), result

    def unfinished(self) -> int:
        return 0

    def workers(self) -> list[WorkerRow]:
        rate = self._tasks / self.waited_s if self.waited_s else 0.0
        host = socket.gethostname()
        return [WorkerRow("in-process", host, os.getpid(), self._tasks, rate, 0, rss_bytes=resident_bytes())]

    def describe(self) -> dict[str, object]:
        return {"executor": "in-process", "device": str(self._worker.device)}

    def close(self) -> None:
        self._worker.close()
