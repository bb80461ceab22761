"""One outer step: maps over the tasks, folded in order, and what the algorithm makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from raymeta.adaptation.problem import Phase
from raymeta.algorithms.base import TASK_GRADIENT, Algorithm
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.outer import Moment
from raymeta.engine.driver.schedule import Schedule
from raymeta.engine.driver.state import RunState
from raymeta.engine.fold import Fold, Total
from raymeta.engine.job import Job, Rows
from raymeta.engine.stopwatch import FOLD, OUTER, REST, TRANSFER, WORK
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.engine.worker.numerics import Numerics
from raymeta.errors import ConfigError, NonFiniteGradient, OutOfMemory
from raymeta.keys import Shard, plan
from raymeta.trackers import names
from raymeta.tree import Layout


class NonFiniteMap(Exception):
    """A map gave a value that is not finite; `total` says from which tasks it comes."""

    def __init__(self, total: Total) -> None:
        super().__init__()
        self.total = total


@dataclass
class Maps:
    """The maps of one outer step, `compute` of `Algorithm.step`: sums of shards that are computed wherever, folded in
    the fixed order.

    What takes how long is told to the driver's stopwatch, and added to `work` what those who computed it say.
    """

    driver: Driver
    work: Counter[str] | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # means over tasks of all maps
    num_tasks: int = 0  # of one map

    def __call__(
        self,
        function: str = TASK_GRADIENT,
        *,
        given: Mapping[str, Tensor] | None = None,
        rows: Mapping[str, Tensor] | None = None,
        of: int | None = None,
    ) -> Total:
        state, schedule = self.driver.state, self.driver.schedule
        step, last = state.step, schedule.steps
        shards = _shards(schedule, step if of is None else of)
        upcoming = _shards(schedule, step + 1) if of is None and step + 1 < last else ()
        chunk_size = state.chunks.at("gradient", step)
        job = Job("gradient", chunk_size=chunk_size, function=function, step=None if of is None else step)
        total = self._fold(job, shards, upcoming, given, None if rows is None else list(_cut(rows, shards)))
        if total.non_finite:
            raise NonFiniteMap(total)
        if total.layout is None:
            total.layout = self._learned
        self.metrics |= {name: value / total.num_tasks for name, value in total.metrics.items()}
        self.num_tasks = total.num_tasks
        return total

    def _fold(
        self,
        job: Job,
        shards: Sequence[Shard],
        upcoming: Sequence[Shard],
        given: Mapping[str, Tensor] | None,
        rows: Sequence[Rows] | None,
    ) -> Total:
        driver, stopwatch, work = self.driver, self.driver.stopwatch, self.work
        fold = Fold(len(shards))
        stopwatch.begin(TRANSFER)
        payload = driver.state.outer.payload(driver.blueprint.state_layout)
        if given:
            payload = payload._replace(given={name: value.detach().numpy() for name, value in given.items()})
        stopwatch.begin(WORK)
        try:
            for block, result in driver.executor.map(job, payload, shards, rows=rows, upcoming=upcoming):
                stopwatch.begin(FOLD)
                fold.add(block, Total.of(result))
                if work is not None:
                    work.update(result.phases)
                stopwatch.begin(WORK)
            return fold.total()
        finally:
            stopwatch.begin(OUTER)

    @property
    def _learned(self) -> Layout:
        blueprint = self.driver.blueprint
        return Layout(blueprint.layout.shapes | blueprint.state_layout.shapes)


def _shards(schedule: Schedule, step: int) -> Sequence[Shard]:
    return plan(
        seed=schedule.seed,
        split="train",
        step=step,
        num_tasks=schedule.meta_batch_size,
        shard_size=schedule.shard_size,
    )


def _cut(rows: Mapping[str, Tensor], shards: Sequence[Shard]) -> Iterator[Rows]:
    """Rows of all tasks [T, ...] as those of each shard."""
    arrays = {name: value.detach().numpy() for name, value in rows.items()}
    for shard in shards:
        yield {name: value[shard.start : shard.stop] for name, value in arrays.items()}


def take_step(
    driver: Driver, out_of_memory: Callable[[OutOfMemory], None], work: Counter[str] | None = None
) -> tuple[dict[str, float], int]:
    """One outer step; returns its metrics and the number of its tasks.

    A step is a transaction: where memory does not suffice, a value is not finite, or workers are lost for good,
    everything is as it was before it. With too little memory `out_of_memory` says how many tasks are computed at once
    from now on, and the step is done again.

    Raises `NonFiniteMap`.
    """
    state, blueprint = driver.state, driver.blueprint
    algorithm, outer = blueprint.algorithm, state.outer
    outer.begin(Moment(state.step, driver.schedule.steps, blueprint.state_layout, blueprint.momenta))
    while True:
        maps = Maps(driver, work)
        try:
            with _transaction(state, blueprint) if algorithm.has_own_step else nullcontext():
                own = algorithm.step(outer, maps, Phase(step=state.step))
            return maps.metrics | own | {names.OUTER_LR: outer.rate}, maps.num_tasks
        except OutOfMemory as error:
            out_of_memory(error)
        finally:
            driver.stopwatch.begin(REST)


@contextmanager
def _transaction(state: RunState, blueprint: Blueprint) -> Iterator[None]:
    """Put back what a step of a method's own changed, where it does not come to its end.

    One that is not needs none: nothing changes before its only map is there.
    """
    before = state.outer.snapshot()
    try:
        with _as_on_a_worker(blueprint.numerics, blueprint.algorithm):
            yield
    except BaseException:
        state.outer.restore(before)
        raise


def _random_states() -> tuple[object, ...]:
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state(legacy=False))


@contextmanager
def _as_on_a_worker(numerics: Numerics, algorithm: Algorithm) -> Iterator[None]:
    """The driver's arithmetic has a worker's threads, and draws nothing: there is no key to draw it from."""
    undo = numerics.apply()
    before = _random_states()
    try:
        yield
    finally:
        undo()
    if _random_states() != before:
        raise ConfigError(
            f"the step of {type(algorithm).__name__} draws random numbers on the driver, so it could not be repeated: "
            "draw in `noise`, which workers call with the keys of their tasks"
        )


def non_finite_gradient(total: Total, driver: Driver, saved_as: str | None) -> NonFiniteGradient:
    """What to raise for a map whose `total` is not finite, after the state before its step was saved as `saved_as`."""
    keys = ", ".join(f"(seed {k.seed}, {k.split}, step {k.step}, index {k.index})" for k in total.non_finite[:4])
    more = f" and {len(total.non_finite) - 4} more" if len(total.non_finite) > 4 else ""
    has_inner_rate = hasattr(driver.blueprint.algorithm, "inner_lr")
    rates = "algorithm.inner_lr or outer.lr" if has_inner_rate else "outer.lr"
    return NonFiniteGradient(
        f"the meta-gradient of step {driver.state.step} is not finite; it comes from the tasks {keys}{more}. The "
        f"parameters before it are saved as {saved_as}. Lower {rates}, or set outer.clip_norm"
    )
