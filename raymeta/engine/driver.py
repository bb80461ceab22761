"""The driver: the only loop. It plans shards, folds their sums in order, takes the outer step, and keeps the books."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from raymeta.algorithms.problem import Learned
from raymeta.engine.checkpoint import Checkpoint, CheckpointStore
from raymeta.engine.executors.base import Executor
from raymeta.engine.outer import OuterOptimizer
from raymeta.engine.reduce import Fold, Total
from raymeta.engine.worker import Blueprint, FloatArray, Job
from raymeta.errors import NonFiniteGradient
from raymeta.keys import Split, plan
from raymeta.runs import tracker as names
from raymeta.runs.tracker import ScoreName, Scores, Trackers
from raymeta.tree import Params

StopReason = Literal["steps", "time_limit", "signal"]

WORKER_REPORT_S = 2.0
"""Seconds between reports of the workers."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train and what to do how often, in outer steps (0 = never)."""

    seed: int
    steps: int
    meta_batch_size: int
    shard_size: int
    validate_every: int = 0
    validation_episodes: int = 200
    checkpoint_every: int = 250
    time_limit_s: float | None = None


@dataclass
class RunState:
    """Where a run stands: what is learned, after how many steps, and the best validation so far."""

    outer: OuterOptimizer
    step: int = 0
    best: dict[str, Any] | None = None  # {step, name, value}
    tasks: int = 0
    train_s: float = 0.0
    validation: dict[str, float] = field(default_factory=dict)

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.step, self.outer.learned, self.outer.state_tensors(), self.best)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint; nothing random has to be restored."""
        self.outer.load(checkpoint.learned, checkpoint.outer)
        self.step, self.best = checkpoint.step, checkpoint.best


@dataclass(frozen=True)
class EpisodeScores:
    """Scores of every episode [N, K + 1] before adapting and after each inner step, by metric name."""

    values: dict[str, FloatArray]
    split: Split
    seed: int

    @property
    def name(self) -> ScoreName:
        return "accuracy" if "accuracy" in self.values else "mse"

    @property
    def main(self) -> FloatArray:
        """The metric of the headline [N, K + 1]: accuracy, or for regression the mean squared error."""
        return self.values["accuracy" if self.name == "accuracy" else "loss"]

    def ranked(self) -> list[int]:
        """Indices of the episodes by their score after the last inner step, worst first."""
        last = self.main[:, -1] if self.name == "accuracy" else -self.main[:, -1]
        return [int(i) for i in np.argsort(last, kind="stable")]

    def summary(self) -> Scores:
        """Mean over episodes after the last inner step with its 95 % interval (1.96 s / sqrt n, s with ddof 1)."""
        last = self.main[:, -1]
        ci95 = 1.96 * float(last.std(ddof=1)) / math.sqrt(len(last)) if len(last) > 1 else math.inf
        return Scores(self.name, [float(m) for m in self.main.mean(0)], float(last.mean()), ci95, len(last))


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
) -> StopReason:
    """Take outer steps until `schedule` ends, the time is over, or a stop is requested; always ends on a checkpoint.

    Raises `NonFiniteGradient`, after the last good state was saved; `WorkerFailed`; `EnvironmentProblem` where a
    checkpoint cannot be written.
    """
    began = clock()
    reported = -math.inf
    reason: StopReason = "steps"
    while state.step < schedule.steps:
        if stop_requested():
            reason = "signal"
            break
        if schedule.time_limit_s is not None and clock() - began >= schedule.time_limit_s:
            reason = "time_limit"
            break
        started = clock()
        total = map_reduce(executor, blueprint, schedule, state)
        if total.non_finite:
            store.save(state.checkpoint())
            raise _non_finite(total, state.step, store)
        metrics = outer_step(state, blueprint, total, schedule)
        state.step += 1
        seconds = clock() - started
        state.tasks += total.num_tasks
        state.train_s += seconds
        metrics |= {names.STEP_S: seconds, names.TASKS_PER_S: total.num_tasks / seconds}
        last = state.step == schedule.steps
        improved = False
        if schedule.validate_every and (state.step % schedule.validate_every == 0 or last):
            improved = _validate(state, blueprint, executor, schedule, tracker)
        tracker.step(state.step, metrics)
        if improved or last or state.step % schedule.checkpoint_every == 0:
            store.save(state.checkpoint(), best=improved)
            tracker.event("checkpoint", f"checkpoint of step {state.step}", step=state.step, best=improved)
        if clock() - reported >= WORKER_REPORT_S or last:
            reported = clock()
            tracker.workers(executor.workers())
    if reason == "time_limit" and schedule.validate_every and state.step % schedule.validate_every:
        store.save(state.checkpoint(), best=_validate(state, blueprint, executor, schedule, tracker))
    elif reason != "steps":
        store.save(state.checkpoint())
    return reason


def map_reduce(executor: Executor, blueprint: Blueprint, schedule: Schedule, state: RunState) -> Total:
    """Sum one step's shards, computed wherever, in the fixed order."""
    shards = plan(
        seed=schedule.seed,
        split="train",
        step=state.step,
        num_tasks=schedule.meta_batch_size,
        shard_size=schedule.shard_size,
    )
    fold = Fold(len(shards))
    for position, result in executor.map(Job("gradient"), payload_of(state.outer.learned, blueprint), shards):
        fold.add(position, Total.of(result))
    return fold.total()


def outer_step(state: RunState, blueprint: Blueprint, total: Total, schedule: Schedule) -> dict[str, float]:
    """Divide the sums once by the number of tasks and step the outer optimiser; returns the step's metrics."""
    mean = torch.from_numpy(total.vector / total.num_tasks)
    gradient, folded = torch.split(mean, [blueprint.layout.size, blueprint.state_layout.size])
    lr = state.outer.options.lr_at(state.step, schedule.steps)
    norm = state.outer.step(blueprint.layout.unflatten(gradient), lr=lr)
    means: Params = blueprint.state_layout.unflatten(folded)
    state.outer.state = blueprint.algorithm.fold_state(state.outer.state, means)
    metrics = {name: value / total.num_tasks for name, value in total.metrics.items()}
    return metrics | {names.OUTER_GRAD_NORM: norm, names.OUTER_LR: lr}


def payload_of(learned: Learned, blueprint: Blueprint) -> FloatArray:
    """Everything learned as one flat vector [P + S] in the blueprint's order (a file's order may be another)."""
    parts = [blueprint.layout.flatten(learned.params), blueprint.state_layout.flatten(learned.state)]
    flat: FloatArray = torch.cat([part.to(parts[0].dtype) for part in parts]).numpy()
    return flat


def score_episodes(
    learned: Learned,
    *,
    blueprint: Blueprint,
    executor: Executor,
    split: Split,
    num_episodes: int,
    seed: int,
    shard_size: int,
    inner_steps: int | None = None,
) -> EpisodeScores:
    """Adapt to `num_episodes` episodes of `split` and score each; the same episodes for every model and checkpoint."""
    shards = plan(seed=seed, split=split, step=0, num_tasks=num_episodes, shard_size=shard_size)
    job = Job("scores", inner_steps)
    results = dict(executor.map(job, payload_of(learned, blueprint), shards))
    ordered = [results[position].scores for position in range(len(shards))]
    return EpisodeScores({n: np.concatenate([s[n] for s in ordered]) for n in ordered[0]}, split, seed)


def _validate(state: RunState, blueprint: Blueprint, executor: Executor, schedule: Schedule, tracker: Trackers) -> bool:
    """Score the validation split; whether it is the best so far."""
    scores = score_episodes(
        state.outer.learned,
        blueprint=blueprint,
        executor=executor,
        split="val",
        num_episodes=schedule.validation_episodes,
        seed=schedule.seed,
        shard_size=schedule.shard_size,
    ).summary()
    state.validation = scores.metrics()
    tracker.validation(state.step, scores)
    value = scores.value if scores.name == "accuracy" else -scores.value
    improved = state.best is None or value > state.best["rank"]
    if improved:
        state.best = {"step": state.step, "name": scores.name, "value": scores.value, "rank": value}
        tracker.event("best", f"best validation so far at step {state.step}", step=state.step)
    return improved


def _non_finite(total: Total, step: int, store: CheckpointStore) -> NonFiniteGradient:
    keys = ", ".join(f"(seed {k.seed}, {k.split}, step {k.step}, index {k.index})" for k in total.non_finite[:4])
    more = f" and {len(total.non_finite) - 4} more" if len(total.non_finite) > 4 else ""
    return NonFiniteGradient(
        f"the meta-gradient of step {step} is not finite; it comes from the tasks {keys}{more}. The parameters before "
        f"it are saved as {store.index().get('last')}. Lower algorithm.inner_lr or outer.lr, or set outer.clip_norm"
    )
