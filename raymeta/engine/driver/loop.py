"""The driver: the only loop. It plans shards, folds their sums in order, and takes the outer step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

from raymeta.engine.driver.background import BackgroundStore
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.milestones import Milestones
from raymeta.engine.driver.profile import Profile
from raymeta.engine.driver.step import NonFiniteMap, non_finite_gradient, take_step
from raymeta.engine.stopwatch import METRICS, REST
from raymeta.errors import RaymetaError
from raymeta.trackers import names

StopReason = Literal["steps", "time_limit", "signal"]

WORKER_REPORT_S = 2.0
"""Seconds between reports of the workers."""


def train_loop(
    driver: Driver,
    store: CheckpointStore,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
    profile: Profile | None = None,
) -> StopReason:
    """Take outer steps until the schedule ends, the time is over, or a stop is requested; always ends on a checkpoint.

    Checkpoints are written in the background; when this returns or raises, the last one is on the disk. `profile`
    records where the time goes and changes nothing else.

    Raises `NonFiniteGradient`, `WorkerFailed`, `EnvironmentProblem`, after the last good state was saved if that was
    possible.
    """
    with BackgroundStore(store) as background, profile or nullcontext():
        milestones = Milestones(driver, background)
        reason = _steps(driver, milestones, stop_requested, clock, profile)
        background.drain()
        milestones.tell_saved()
    return reason


def _steps(
    driver: Driver,
    milestones: Milestones,
    stop_requested: Callable[[], bool],
    clock: Callable[[], float],
    profile: Profile | None,
) -> StopReason:
    state, executor, schedule = driver.state, driver.executor, driver.schedule
    tracker, stopwatch = driver.tracker, driver.stopwatch
    began = clock()
    reported = -math.inf
    milestones.resume()
    while state.step < schedule.steps:
        if stop_requested():
            milestones.stop(validate=False)
            return "signal"
        if schedule.time_limit_s is not None and clock() - began >= schedule.time_limit_s:
            milestones.stop(validate=True)
            return "time_limit"
        started, waited = clock(), executor.waited_s
        if profile is not None:
            profile.begin_step(stopwatch)
        try:
            metrics, num_tasks = take_step(driver, milestones.out_of_memory, None if profile is None else profile.work)
        except RaymetaError:
            milestones.rescue()
            raise
        except NonFiniteMap as error:
            milestones.stop(validate=False)
            saved_as = milestones.store.index().get("last")
            raise non_finite_gradient(error.total, driver, saved_as) from None
        stopwatch.begin(METRICS)
        state.step += 1
        seconds = clock() - started
        state.tasks += num_tasks
        state.train_s += seconds
        busy = 1 - min(1.0, (executor.waited_s - waited) / seconds)
        metrics |= {names.STEP_S: seconds, names.TASKS_PER_S: num_tasks / seconds, names.DRIVER_BUSY: busy}
        tracker.step(state.step, metrics)
        stopwatch.begin(REST)
        last = state.step == schedule.steps
        milestones.after_step(last=last)
        if clock() - reported >= WORKER_REPORT_S or last:
            reported = clock()
            with stopwatch(METRICS):
                tracker.workers(executor.workers())
        if profile is not None:
            profile.end_step(stopwatch)
    return "steps"
