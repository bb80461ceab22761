"""A worker computes shards: one process, one device, no outer state, and no knowledge of Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from raymeta.algorithms.base import Algorithm
from raymeta.algorithms.problem import BatchNormPolicy, Learned, Phase, Problem, Vectorize
from raymeta.errors import EnvironmentProblem
from raymeta.keys import Shard, TaskKey
from raymeta.models.differentiable import exact_attention, explain_failure
from raymeta.tasks.base import Episode, Examples, TaskSet
from raymeta.tree import Layout

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Everything a worker is made of; a few kilobytes to pickle besides the model."""

    tasks: TaskSet
    algorithm: Algorithm
    model: nn.Module
    layout: Layout
    state_layout: Layout
    batch_norm: BatchNormPolicy = "transductive"
    vectorize: Vectorize = "vmap"
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "cpu"

    def problem(self) -> Problem:
        return Problem(self.model, goal=self.tasks.goal, batch_norm=self.batch_norm, vectorize=self.vectorize)


class Job(NamedTuple):
    """What to do with a shard: sum its meta-gradients, or score its episodes."""

    kind: Literal["gradient", "scores"]
    inner_steps: int | None = None


@dataclass(frozen=True)
class Result:
    """A shard's outcome. Sums never means; one flat vector whatever the number of tasks."""

    shard: Shard
    vector: FloatArray = field(default_factory=lambda: np.zeros(0))  # [P + S] sums of meta-gradient and state
    metrics: dict[str, float] = field(default_factory=dict)  # sums over tasks
    scores: dict[str, FloatArray] = field(default_factory=dict)  # [T, K + 1] each
    non_finite: tuple[TaskKey, ...] = ()
    seconds: float = 0.0
    pid: int = 0


class Worker:
    """Computes `Result`s; a pure function of (job, payload, shard), so any worker may compute any shard again."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.device = choose_device(blueprint.device)
        # A float32 sum changes with the number of threads, so it is pinned wherever shards are computed.
        torch.set_num_threads(blueprint.threads)
        self.problem = blueprint.problem()
        self.problem.model.to(self.device)
        self._version: tuple[FloatArray, Learned] | None = None

    def ready(self) -> int:
        """Load the data; answers with the process id."""
        self.blueprint.tasks.check()
        return os.getpid()

    def run(self, job: Job, payload: FloatArray, shard: Shard) -> Result:
        """Compute one shard from the flat parameters and state `payload` [P + S], which is only read."""
        started = time.perf_counter()
        keys = list(shard.keys())
        learned = self._unpack(payload)
        with torch.random.fork_rng(devices=[]), exact_attention():
            self.problem.set_training(job.kind == "gradient")
            torch.manual_seed(int(keys[0].generator("torch").integers(2**63)))
            result = self._gradient(learned, keys) if job.kind == "gradient" else self._scores(job, learned, keys)
        return Result(shard, *result, seconds=time.perf_counter() - started, pid=os.getpid())

    def _gradient(
        self, learned: Learned, keys: Sequence[TaskKey]
    ) -> tuple[FloatArray, dict[str, float], dict[str, FloatArray], tuple[TaskKey, ...]]:
        vector, metrics = self._sums(learned, keys)
        bad: tuple[TaskKey, ...] = ()
        if not np.isfinite(vector).all():
            alone = [key for key in keys if not np.isfinite(self._sums(learned, [key])[0]).all()]
            bad = tuple(alone or keys)
        return vector, metrics, {}, bad

    def _sums(self, learned: Learned, keys: Sequence[TaskKey]) -> tuple[FloatArray, dict[str, float]]:
        phase = Phase(step=keys[0].step, training=True)
        episodes = self._episodes(keys)
        noise = self.blueprint.algorithm.noise(self.problem, keys, episodes.support, phase)
        noise = {name: value.to(self.device) for name, value in noise.items()}
        try:
            sums = self.blueprint.algorithm.contribution(self.problem, learned, episodes, noise=noise, phase=phase)
        except RuntimeError as error:
            raise explain_failure(self.problem.model, episodes.support.x[0], error) from error
        flat = torch.cat(
            [self.blueprint.layout.flatten(sums.gradient), self.blueprint.state_layout.flatten(sums.state)]
        )
        # Summed in float64, sent in the parameters' own type: the leaves of the fold.
        dtype = next(iter(learned.params.values())).dtype
        return flat.to("cpu", dtype).numpy(), {name: float(value) for name, value in sums.metrics.items()}

    def _scores(
        self, job: Job, learned: Learned, keys: Sequence[TaskKey]
    ) -> tuple[FloatArray, dict[str, float], dict[str, FloatArray], tuple[TaskKey, ...]]:
        phase = Phase(step=keys[0].step, training=False, inner_steps=job.inner_steps)
        episodes = self._episodes(keys)
        noise = self.blueprint.algorithm.noise(self.problem, keys, episodes.support, phase)
        noise = {name: value.to(self.device) for name, value in noise.items()}
        scores = self.blueprint.algorithm.scores(self.problem, learned, episodes, noise=noise, phase=phase)
        return np.zeros(0), {}, {name: value.cpu().double().numpy() for name, value in scores.items()}, ()

    def _episodes(self, keys: Sequence[TaskKey]) -> Episode:
        episodes = self.blueprint.tasks.episodes(keys)
        dtype = next(self.problem.model.parameters()).dtype
        return Episode(*(_moved(side, self.device, dtype) for side in episodes))

    def _unpack(self, payload: FloatArray) -> Learned:
        """Parameters and state in storage of our own: a payload from shared memory must never be written."""
        if self._version is not None and self._version[0] is payload:
            return self._version[1]
        owned = torch.tensor(payload, device=self.device)
        params, state = torch.split(owned, [self.blueprint.layout.size, self.blueprint.state_layout.size])
        learned = Learned(self.blueprint.layout.unflatten(params), self.blueprint.state_layout.unflatten(state))
        self._version = (payload, learned)
        return learned


def _moved(examples: Examples, device: torch.device, dtype: torch.dtype) -> Examples:
    x, y, class_id = (None if v is None else v.to(device, non_blocking=True) for v in examples)
    assert x is not None
    assert y is not None
    floats = [v.to(dtype) if v.is_floating_point() else v for v in (x, y)]
    return Examples(floats[0], floats[1], class_id)


def choose_device(wanted: str) -> torch.device:
    """The device torch sees: a GPU where there is one and it was not declined."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise EnvironmentProblem("device cuda was asked, but torch sees no GPU here: use --device cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")
