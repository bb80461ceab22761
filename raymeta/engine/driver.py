"""The driver: the only loop. It plans shards, folds their sums in order, and takes the outer step."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Literal

import torch

from raymeta.engine.background import BackgroundStore
from raymeta.engine.books import Books, RunState
from raymeta.engine.checkpoint import CheckpointStore
from raymeta.engine.executors.base import Executor
from raymeta.engine.phases import FOLD, METRICS, OUTER, REST, TRANSFER, WORK, Phases
from raymeta.engine.profile import Profile
from raymeta.engine.reduce import Fold, Total
from raymeta.engine.schedule import Schedule
from raymeta.engine.worker import Blueprint, Job
from raymeta.errors import NonFiniteGradient, OutOfMemory, RaymetaError
from raymeta.keys import Shard, plan
from raymeta.runs import tracker as names
from raymeta.runs.tracker import Trackers
from raymeta.tree import Params

StopReason = Literal["steps", "time_limit", "signal"]

WORKER_REPORT_S = 2.0
"""Seconds between reports of the workers."""


def train_loop(
    state: RunState,
    *,
    blueprint: Blueprint,
    executor: Executor,
    schedule: Schedule,
    store: CheckpointStore,
    tracker: Trackers,
    stop_requested: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
    profile: Profile | None = None,
) -> StopReason:
    """Take outer steps until `schedule` ends, the time is over, or a stop is requested; always ends on a checkpoint.

    Checkpoints are written in the background; when this returns or raises, the last one is on the disk. `profile`
    records where the time goes and changes nothing else.

    Raises `NonFiniteGradient`, `WorkerFailed`, `EnvironmentProblem`, after the last good state was saved if that was
    possible.
    """
    with BackgroundStore(store) as background, profile or nullcontext():
        books = Books(state, blueprint, executor, schedule, background, tracker, Phases())
        reason = _steps(books, stop_requested, clock, profile)
        background.drain()
        books.tell_saved()
    return reason


def _steps(
    books: Books, stop_requested: Callable[[], bool], clock: Callable[[], float], profile: Profile | None
) -> StopReason:
    state, blueprint, executor = books.state, books.blueprint, books.executor
    schedule, tracker, phases = books.schedule, books.tracker, books.phases
    began = clock()
    reported = -math.inf
    books.resume()
    while state.step < schedule.steps:
        if stop_requested():
            books.stop(validate=False)
            return "signal"
        if schedule.time_limit_s is not None and clock() - began >= schedule.time_limit_s:
            books.stop(validate=True)
            return "time_limit"
        started, waited = clock(), executor.waited_s
        if profile is not None:
            profile.begin_step(phases)
        try:
            total = _sums(books, None if profile is None else profile.work)
        except RaymetaError:
            books.rescue()
            raise
        if total.non_finite:
            books.stop(validate=False)
            raise _non_finite(total, books)
        phases.begin(OUTER)
        metrics = outer_step(state, blueprint, total, schedule)
        phases.begin(METRICS)
        state.step += 1
        seconds = clock() - started
        state.tasks += total.num_tasks
        state.train_s += seconds
        busy = 1 - min(1.0, (executor.waited_s - waited) / seconds)
        metrics |= {names.STEP_S: seconds, names.TASKS_PER_S: total.num_tasks / seconds, names.DRIVER_BUSY: busy}
        tracker.step(state.step, metrics)
        phases.begin(REST)
        last = state.step == schedule.steps
        books.after_step(last=last)
        if clock() - reported >= WORKER_REPORT_S or last:
            reported = clock()
            with phases(METRICS):
                tracker.workers(executor.workers())
        if profile is not None:
            profile.end_step(phases)
    return "steps"


def _sums(books: Books, work: Counter[str] | None) -> Total:
    """One step's sums; done again with half as many tasks at once, on all workers, where memory did not suffice."""
    while True:
        try:
            return map_reduce(books.executor, books.blueprint, books.schedule, books.state, books.phases, work)
        except OutOfMemory as error:
            books.out_of_memory(error)


def map_reduce(
    executor: Executor,
    blueprint: Blueprint,
    schedule: Schedule,
    state: RunState,
    phases: Phases | None = None,
    work: Counter[str] | None = None,
) -> Total:
    """Sum one step's shards, computed wherever, in the fixed order.

    What of this takes how long is told to `phases`, and added to `work` what those who computed it say.
    """
    phases = phases or Phases()
    shards = _shards(schedule, state.step)
    upcoming = _shards(schedule, state.step + 1) if state.step + 1 < schedule.steps else ()
    fold = Fold(len(shards))
    job = Job("gradient", chunk_size=state.chunks.at("gradient", state.step))
    phases.begin(TRANSFER)
    payload = state.outer.payload(blueprint.state_layout)
    phases.begin(WORK)
    try:
        for block, result in executor.map(job, payload, shards, upcoming=upcoming):
            phases.begin(FOLD)
            fold.add(block, Total.of(result))
            if work is not None:
                work.update(result.phases)
            phases.begin(WORK)
        return fold.total()
    finally:
        phases.begin(REST)


def _shards(schedule: Schedule, step: int) -> Sequence[Shard]:
    return plan(
        seed=schedule.seed,
        split="train",
        step=step,
        num_tasks=schedule.meta_batch_size,
        shard_size=schedule.shard_size,
    )


def outer_step(state: RunState, blueprint: Blueprint, total: Total, schedule: Schedule) -> dict[str, float]:
    """Divide the sums once by the number of tasks and step the outer optimiser; returns the step's metrics."""
    mean = total.vector / total.num_tasks
    gradient, folded = mean[: blueprint.layout.size], mean[blueprint.layout.size :]
    lr = state.outer.options.lr_at(state.step, schedule.steps)
    norm = state.outer.step(gradient, lr=lr)
    if state.outer.state:
        means: Params = blueprint.state_layout.unflatten(torch.from_numpy(folded))
        momenta = {name: 1 / (state.step + 1) if m is None else m for name, m in blueprint.momenta.items()}
        state.outer.state = blueprint.algorithm.fold_state(state.outer.state, means, momenta)
    metrics = {name: value / total.num_tasks for name, value in total.metrics.items()}
    return metrics | {names.OUTER_GRAD_NORM: norm, names.OUTER_LR: lr}


def _non_finite(total: Total, books: Books) -> NonFiniteGradient:
    keys = ", ".join(f"(seed {k.seed}, {k.split}, step {k.step}, index {k.index})" for k in total.non_finite[:4])
    more = f" and {len(total.non_finite) - 4} more" if len(total.non_finite) > 4 else ""
    has_inner_rate = hasattr(books.blueprint.algorithm, "inner_lr")
    rates = "algorithm.inner_lr or outer.lr" if has_inner_rate else "outer.lr"
    return NonFiniteGradient(
        f"the meta-gradient of step {books.state.step} is not finite; it comes from the tasks {keys}{more}. The "
        f"parameters before it are saved as {books.store.index().get('last')}. Lower {rates}, or set outer.clip_norm"
    )
