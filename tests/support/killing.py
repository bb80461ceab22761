"""Training with executors that a test holds, and workers killed inside chosen maps of an outer step."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raymeta.config.build import build
from raymeta.config.schema import RunConfig
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.loop import train_loop
from raymeta.engine.executors.base import Executor
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.executors.placement import PoolOptions
from raymeta.engine.executors.ray_actors import RayExecutor
from raymeta.trackers.base import Tracker, Trackers
from raymeta.tree import params_sha256

Asked = list[tuple[int, str]]
"""Steps and methods of the maps of a training, in order."""


def trained_alone(config: RunConfig, folder: Path) -> tuple[str, Asked]:
    """SHA-256 of the parameters after training in this process, and what was asked."""
    executor = LocalExecutor(build(config).blueprint)
    asked = _noted(executor, lambda place: None)
    return trained(executor, config, folder), asked


def trained_with_kills(config: RunConfig, folder: Path, kills: Callable[[Asked], bool]) -> tuple[str, Asked, list[str]]:
    """The same on two workers, one of which is killed as a map is asked for where `kills` of all maps so far says so;
    and the events."""
    events: list[str] = []
    pool = RayExecutor(build(config).blueprint, PoolOptions(workers=2), tell=lambda kind, *_, **__: events.append(kind))

    def kill(asked: Asked) -> None:
        if kills(asked):
            _kill_one([worker.pid for worker in pool.workers()])

    asked = _noted(pool, kill)
    return trained(pool, config, folder), asked, events


def _kill_one(pids: Sequence[int]) -> None:
    """The first that still lives: the pool may not have noticed yet that one does not."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return
    raise AssertionError("no worker lives")


def _noted(executor: Any, before: Callable[[Asked], None]) -> Asked:
    plain, asked = executor.map, []

    def noting(job: Any, payload: Any, shards: Any, *args: Any, **options: Any) -> Any:
        if job.kind == "gradient":
            asked.append((shards[0].step, job.function))
            before(asked)
        return plain(job, payload, shards, *args, **options)

    executor.map = noting
    return asked


def trained(executor: Executor, config: RunConfig, folder: Path, *listeners: Tracker) -> str:
    """SHA-256 of the parameters after training with `executor`, which is closed."""
    built = build(config)
    state = built.state()
    try:
        driver = Driver(state, built.blueprint, executor, built.schedule, Trackers(listeners, together_s=0))
        train_loop(driver, CheckpointStore(folder))
    finally:
        executor.close()
    return params_sha256(state.outer.learned.params)
