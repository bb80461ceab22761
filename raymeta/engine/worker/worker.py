"""A worker computes shards: one process, one device, no outer state, and no knowledge of Ray."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymeta.adaptation.problem import Learned, Phase
from raymeta.algorithms.base import Algorithm, DescentAlgorithm
from raymeta.autodiff.derivatives import whole_graphs
from raymeta.autodiff.failures import exact_attention
from raymeta.engine.job import Job, Payload, Result, Rows
from raymeta.engine.stopwatch import EPISODES, GRADIENT, REST, TRANSFER, Stopwatch
from raymeta.engine.worker.blueprint import Blueprint, choose_device
from raymeta.engine.worker.compile_rule import compiler_problem
from raymeta.engine.worker.memory_errors import is_memory_error
from raymeta.engine.worker.prefetch import Prefetch
from raymeta.engine.worker.randomness import Randomness
from raymeta.engine.worker.shard_function import Asked, Outline, ShardFunction, ShardSums
from raymeta.errors import EnvironmentProblem, OutOfMemory
from raymeta.keys import Shard, TaskKey
from raymeta.models.shapes import type_of
from raymeta.system.kept_memory import kept_memory
from raymeta.tasks.episodes import Episode, Noise, each, in_chunks, one_task
from raymeta.tree import Array, FloatArray, Layout, Params, outer_type


class Work(NamedTuple):
    """One shard as it is computed."""

    job: Job
    learned: Learned
    keys: Sequence[TaskKey]
    episodes: Episode
    way: int
    rows: Params | None = None

    def phase(self, *, training: bool) -> Phase:
        step = self.keys[0].step if self.job.step is None else self.job.step
        return Phase(step=step, training=training, inner_steps=self.job.inner_steps, way=self.way)


class Outcome(NamedTuple):
    """The fields of a result that its work decides."""

    vector: FloatArray
    metrics: dict[str, float] = {}
    rows: Rows = {}
    layout: Layout | None = None
    non_finite: tuple[TaskKey, ...] = ()


class Worker:
    """Computes `Result`s; a pure function of (job, payload, shard), so any worker may compute any shard again.

    `data` are a task set's data that were sent here, so that it need not read them again. `steps_at_once` is for a
    worker that gets the same shards in every step.
    """

    def __init__(self, blueprint: Blueprint, data: object = None, *, steps_at_once: bool = False) -> None:
        self.blueprint = blueprint
        if data is not None:
            blueprint.tasks.receive(data)
        self._settings = ExitStack()  # of the whole process, until `close`
        self._settings.callback(blueprint.numerics.apply())
        self._settings.enter_context(kept_memory())
        self._settings.enter_context(exact_attention())
        self.device = choose_device(blueprint.device)
        self.problem = blueprint.problem()
        self.problem.model.to(self.device)
        self._dtype = type_of(self.problem.model)
        self._sums_of = ShardFunction(
            blueprint.algorithm,
            self.problem,
            blueprint.layout,
            blueprint.state_layout,
            compiled=blueprint.compiled,
        )
        self._leaf_type = torch.empty(0, dtype=outer_type(self._dtype)).numpy().dtype
        self._phases = Stopwatch()
        self._randomness = Randomness(self.device, all_generators=blueprint.habits.draws)
        self._noisy = type(blueprint.algorithm).noise is not Algorithm.noise  # noise of one's own may draw from torch
        self._pid = os.getpid()
        self._owned = torch.empty(blueprint.layout.size + blueprint.state_layout.size, dtype=self._dtype).to(
            self.device
        )
        as_sent = self.device.type == "cpu" and outer_type(self._dtype) == self._dtype
        self._writable = self._owned.numpy() if as_sent else None
        self._learned = self._views(self._owned)
        self._version: Payload | None = None
        on_gpu = self.device.type == "cuda"
        self._prefetch = Prefetch(
            blueprint.tasks,
            steps_at_once=steps_at_once and not on_gpu,
            keeps_step=blueprint.algorithm.has_own_step,
            finish=_pinned if on_gpu else self._moved,
            mixing=blueprint.mixing,
        )

    def ready(self) -> int:
        """Load the data; answers with the process id. Raises `EnvironmentProblem` where a compiler is needed and none
        works."""
        self.blueprint.tasks.require(())  # the driver has checked the splits that it uses
        if self.blueprint.compiled and self.device.type == "cpu" and (problem := compiler_problem()) is not None:
            raise EnvironmentProblem(
                f"no compiler works on {socket.gethostname()}: {problem}. Install one, or give --compile false, with "
                "which a compiled run may go on, too"
            )
        return os.getpid()

    def run(self, job: Job, payload: Payload, shard: Shard, rows: Rows | None = None) -> Result:
        """Compute one shard from `payload`, which is only read, and the `rows` of its tasks where the job takes any.

        Raises `OutOfMemory` where memory does not suffice for so many tasks at once.
        """
        try:
            return self._run(job, payload, shard, rows)
        except (RuntimeError, MemoryError) as error:
            if not is_memory_error(error):
                raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
        # Outside of the except clause, whose traceback would hold what was computed so far.
        raise self._out_of_memory(job, shard, reason)

    def _run(self, job: Job, payload: Payload, shard: Shard, rows: Rows | None) -> Result:
        phases = self._phases
        phases.lap(EPISODES)
        compiled_before = self._sums_of.compile_s
        try:
            episodes = self._prefetch.take(shard)
            way = self.problem.way_of(episodes)  # a GPU would have to be asked for it
            phases.begin(TRANSFER)
            if self.device.type == "cuda":
                episodes = self._moved(episodes)
            learned = self._unpack(payload)
            own = None if rows is None else {name: self._to_device(value) for name, value in rows.items()}
            phases.begin(GRADIENT)
            outcome = self._compute(Work(job, learned, shard.keys(), episodes, way, own))
        finally:
            seconds = phases.lap(REST)
        return Result(
            shard,
            **outcome._asdict(),
            seconds=sum(seconds.values()),
            compile_s=self._sums_of.compile_s - compiled_before,
            phases=seconds,
            pid=self._pid,
        )

    def _compute(self, work: Work) -> Outcome:
        training = work.job.kind == "gradient"
        self.problem.set_training(training)
        try:
            with self.blueprint.numerics.autocast(self.device), whole_graphs():
                return self._summed(work) if training else self._scores(work)
        finally:
            self._randomness.give_back()

    def _out_of_memory(self, job: Job, shard: Shard, reason: str) -> OutOfMemory:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        at_once = 1 if self.problem.vectorize == "loop" else min(job.chunk_size or shard.num_tasks, shard.num_tasks)
        algorithm = self.blueprint.algorithm
        has_inner_steps = isinstance(algorithm, DescentAlgorithm)
        remedies = ["use fewer query examples"]
        remedies += ["checkpoint_inner_steps: true"] if has_inner_steps and job.kind == "gradient" else []
        remedies += ["first_order: true"] if hasattr(algorithm, "first_order") and job.kind == "gradient" else []
        where = f"{shard.split}, step {shard.step}, tasks {shard.start} to {shard.stop - 1}"
        return OutOfMemory(
            f"memory does not suffice for {at_once} task{'s' * (at_once > 1)} at once ({where}: {reason}): "
            f"{', '.join(remedies)}, a smaller model, or a larger device",
            at_once,
        )

    def prepare(self, shard: Shard) -> None:
        """Build the episodes of a shard that may come next beside other work; whether it comes changes no bits."""
        self._prefetch.prepare(shard)

    def close(self) -> None:
        """Give the process its own settings back."""
        self._prefetch.close()
        self._settings.close()

    def _moved(self, episodes: Episode) -> Episode:
        """On the device, in the network's own type."""

        def moved(value: Tensor) -> Tensor:
            wanted = self._dtype if value.is_floating_point() else value.dtype
            if value.device == self.device and value.dtype == wanted:
                return value
            return value.to(self.device, wanted, non_blocking=True)

        return each(moved, episodes)

    def _summed(self, work: Work) -> Outcome:
        sums, metrics, outline, rows = self._sums(work)
        vector, finite = self._leaf(sums)
        named = {name: value.numpy() for name, value in rows.items()}
        bad: tuple[TaskKey, ...] = ()
        if not (finite and _are_finite(rows)):
            bad = tuple(key for i, key in enumerate(work.keys) if not self._is_finite_alone(work, i)) or tuple(
                work.keys
            )
        return Outcome(vector, metrics, named, outline.layout, bad)

    def _is_finite_alone(self, work: Work, index: int) -> bool:
        key = work.keys[index]
        episodes = self._prefetch.draw([key])
        rows = None if work.rows is None else {name: value[index : index + 1] for name, value in work.rows.items()}
        alone = work._replace(keys=[key], episodes=self._moved(episodes), way=self.problem.way_of(episodes), rows=rows)
        sums, _, _, found = self._sums(alone)
        return self._leaf(sums)[1] and _are_finite(found)

    def _sums(self, work: Work) -> tuple[NDArray[np.float64], dict[str, float], Outline, Params]:
        first, phase = work.keys[0], work.phase(training=True)
        if self._noisy:
            self._randomness.take(first)
        noise = self._noise(work, phase)
        try:
            vector, outline = self._sums_of(
                work.learned,
                Asked(work.job.function, work.episodes, noise, phase, work.rows),
                chunk_size=work.job.chunk_size,
                draws=lambda: self._randomness.take(first),
            )
        except RuntimeError as error:
            raise self._explained(work.episodes, error) from error
        on_cpu = ShardSums(vector.cpu(), outline)
        values = on_cpu.vector.numpy()
        end = outline.num_sums + len(outline.metrics)
        metrics = dict(zip(outline.metrics, values[outline.num_sums : end].tolist(), strict=True))
        return values[: outline.num_sums], metrics, outline, on_cpu.rows()

    def _noise(self, work: Work, phase: Phase) -> Noise:
        noise = self.blueprint.algorithm.noise(self.problem, work.keys, work.episodes, phase)
        return {name: value.to(self.device) for name, value in noise.items()}

    def _leaf(self, sums: NDArray[np.float64]) -> tuple[FloatArray, bool]:
        """Float64 sums in the parameters' own type, the leaves of the fold, and whether all are finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            vector = sums.astype(self._leaf_type)
            square = np.dot(vector, vector)  # one call, where asking each element takes three
        return vector, math.isfinite(square) or bool(np.isfinite(vector).all())

    def _scores(self, work: Work) -> Outcome:
        self._randomness.take(work.keys[0])
        phase = work.phase(training=False)
        noise = self._noise(work, phase)
        try:
            parts = [
                self.blueprint.algorithm.scores(self.problem, work.learned, part, noise=draws, phase=phase)
                for part, draws in in_chunks(work.episodes, noise, work.job.chunk_size)
            ]
        except RuntimeError as error:
            raise self._explained(work.episodes, error) from error
        scores = {name: torch.cat([part[name] for part in parts]).cpu().double().numpy() for name in parts[0]}
        return Outcome(np.zeros(0), rows=scores)

    def _explained(self, episodes: Episode, error: RuntimeError) -> Exception:
        one = Episode(*(one_task(side, 0) for side in episodes))
        return self.blueprint.algorithm.explained(self.problem, one, error)

    def _unpack(self, payload: Payload) -> Learned:
        """What was sent in storage of our own: a payload from shared memory must never be written."""
        if self._version is not payload:
            self._version = None
            flat = payload.learned
            if self._writable is not None and flat.shape == self._writable.shape:
                np.copyto(self._writable, flat, casting="no")
            else:
                self._owned.copy_(torch.tensor(flat))
            if payload.given or self._learned.given:  # the object stays the same where it can: graphs are found by it
                given = {name: self._to_device(value) for name, value in payload.given.items()}
                self._learned = self._learned._replace(given=given)
            self._version = payload
        return self._learned

    def _to_device(self, value: Array) -> Tensor:
        """A copy, in the network's own type where it is floating."""
        tensor = torch.tensor(value)
        return tensor.to(self.device, self._dtype if tensor.is_floating_point() else tensor.dtype)

    def _views(self, owned: Tensor) -> Learned:
        params, state = torch.split(owned, [self.blueprint.layout.size, self.blueprint.state_layout.size])
        return Learned(self.blueprint.layout.unflatten(params), self.blueprint.state_layout.unflatten(state))


def _are_finite(rows: Params) -> bool:
    return all(bool(value.isfinite().all()) for value in rows.values() if value.is_floating_point())


def _pinned(episodes: Episode) -> Episode:
    """In memory from which a GPU copies while it computes."""
    return each(lambda value: value.pin_memory() if value.device.type == "cpu" else value, episodes)


def resident_bytes() -> int:
    """Memory this process holds now; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
