"""The in-process executor: the same shards, here, without Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

import torch

from raymeta.engine.worker import Blueprint, FloatArray, Job, Result, Worker
from raymeta.keys import Shard
from raymeta.runs.tracker import WorkerRow


class LocalExecutor:
    """One worker inside this process."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._threads_before = torch.get_num_threads()
        self._worker = Worker(blueprint)
        self._tasks, self._seconds = 0, 0.0

    def map(self, job: Job, payload: FloatArray, shards: Sequence[Shard]) -> Iterator[tuple[int, Result]]:
        for position, shard in enumerate(shards):
            result = self._worker.run(job, payload, shard)
            self._tasks += shard.num_tasks
            self._seconds += result.seconds
            yield position, result

    def workers(self) -> list[WorkerRow]:
        rate = self._tasks / self._seconds if self._seconds else 0.0
        return [WorkerRow("in-process", socket.gethostname(), os.getpid(), self._tasks, rate, 0)]

    def close(self) -> None:
        torch.set_num_threads(self._threads_before)
