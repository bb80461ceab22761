"""One outer step: the shards' sums, folded in order, and the step of the outer optimiser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from raymeta.engine.driver.milestones import Books
from raymeta.engine.driver.schedule import Schedule
from raymeta.engine.driver.state import RunState
from raymeta.engine.executors.base import Executor
from raymeta.engine.fold import Fold, Total
from raymeta.engine.job import Job
from raymeta.engine.stopwatch import FOLD, REST, TRANSFER, WORK, Phases
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.errors import NonFiniteGradient
from raymeta.keys import Shard, plan
from raymeta.trackers import names
from raymeta.tree import Params


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


def non_finite_gradient(total: Total, books: Books) -> NonFiniteGradient:
    keys = ", ".join(f"(seed {k.seed}, {k.split}, step {k.step}, index {k.index})" for k in total.non_finite[:4])
    more = f" and {len(total.non_finite) - 4} more" if len(total.non_finite) > 4 else ""
    has_inner_rate = hasattr(books.blueprint.algorithm, "inner_lr")
    rates = "algorithm.inner_lr or outer.lr" if has_inner_rate else "outer.lr"
    return NonFiniteGradient(
        f"the meta-gradient of step {books.state.step} is not finite; it comes from the tasks {keys}{more}. The "
        f"parameters before it are saved as {books.store.index().get('last')}. Lower {rates}, or set outer.clip_norm"
    )
