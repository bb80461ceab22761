"""Functions drawn from a Gaussian process, and what an exact observer would know of them.

Shape suffixes: T tasks, S support points, Q query points, N both, D dimensions of x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.keys import Split, TaskKey
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, one_task
from raymeta.tasks.inputs import only
from raymeta.tasks.sizes import drawn_for_step, size_of
from raymeta.tree import FloatArray

Range = tuple[PositiveFloat, PositiveFloat]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GaussianProcess(TaskSet):
    """y = f(x) + ε with f ~ GP(0, k), k(a, b) = σ² exp(−‖a − b‖² / 2ℓ²), ε ~ N(0, τ²) and x ~ U[−2, 2] on each axis.

    ℓ, σ and τ are drawn for each task, log-uniformly between two values; equal values fix them, and then `exact`
    is the best that any predictor can do. The number of support points is drawn anew for each training step, all tasks
    of a step alike. All splits share the distribution; their keys differ.
    """

    goal: ClassVar[Goal] = "regression"

    length_scale: Range = (0.4, 0.4)
    """ℓ: how far apart values are still alike"""
    amplitude: Range = (1.0, 1.0)
    """σ: standard deviation of f"""
    noise: Range = (0.02, 0.02)
    """τ: standard deviation of the noise"""
    dim: PositiveInt = 1
    """dimensions of x"""
    x_range: tuple[float, float] = (-2.0, 2.0)
    """where x lies on each axis"""
    shot: PositiveInt = 10
    """support points of a validation or test task"""
    query_shot: PositiveInt = 50
    """query points of a task"""
    train_shots: tuple[PositiveInt, PositiveInt] = (1, 20)
    """fewest and most support points of a training task"""

    @model_validator(mode="after")
    def _ranges_go_up(self) -> GaussianProcess:
        for name in ("length_scale", "amplitude", "noise", "x_range", "train_shots"):
            low, high = getattr(self, name)
            if low > high or (name == "x_range" and low == high):
                raise ValueError(f"{name} goes from {low:g} to {high:g}: write the smaller value first")
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.dim,)

    @property
    def num_outputs(self) -> int:
        return 1

    def num_classes(self, split: Split) -> int:
        return 0

    def size(self, split: Split) -> Size:
        return Size(1, self.train_shots[1] if split == "train" else self.shot, self.query_shot)

    def size_at(self, split: Split, step: int) -> Size:
        size = self.size(split)
        return size._replace(shot=drawn_for_step(split, step, *self.train_shots)) if split == "train" else size

    def episode(self, key: TaskKey) -> Episode:
        support, query = self.episodes([key])
        return Episode(one_task(support, 0), one_task(query, 0))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        size = size_of(self, keys)
        x_TND, y_TN1 = self._drawn(keys, size.shot + size.query_shot)
        sides = [torch.from_numpy(v.astype(np.float32)) for v in (x_TND, y_TN1)]
        return Episode(
            Examples(*(v[:, : size.shot].contiguous() for v in sides)),
            Examples(*(v[:, size.shot :].contiguous() for v in sides)),
        )

    def kernel(self, key: TaskKey) -> Kernel:
        """The kernel that the task of `key` is drawn with."""
        ranges = (self.length_scale, self.amplitude, self.noise)
        pairs = zip(ranges, key.generator().random(3), strict=True)
        return Kernel(*(low * (high / low) ** float(draw) for (low, high), draw in pairs))

    def _drawn(self, keys: Sequence[TaskKey], count: int) -> tuple[FloatArray, FloatArray]:
        """x [T, N, D] and y [T, N, 1]."""
        draws = [key.generator() for key in keys]
        for draw in draws:
            draw.random(3)  # those of the kernel
        low, high = self.x_range
        x_TND = low + (high - low) * np.stack([draw.random((count, self.dim)) for draw in draws])
        normal_TN1 = np.stack([draw.standard_normal((count, 1)) for draw in draws])
        kernels = [self.kernel(key) for key in keys]
        covariance = np.stack([k.noisy(torch.from_numpy(x)).numpy() for k, x in zip(kernels, x_TND, strict=True)])
        return x_TND, np.linalg.cholesky(covariance) @ normal_TN1


class Kernel(NamedTuple):
    """A squared-exponential kernel, and the noise on what is observed."""

    length_scale: float
    amplitude: float
    noise: float

    def between(self, a_ND: Tensor, b_MD: Tensor) -> Tensor:
        """Covariances [N, M] of f."""
        squared_NM = (a_ND[:, None] - b_MD[None]).square().sum(-1)
        return self.amplitude**2 * (-squared_NM / (2 * self.length_scale**2)).exp()

    def noisy(self, x_ND: Tensor) -> Tensor:
        """Covariances [N, N] of y."""
        return self.between(x_ND, x_ND) + self.noise**2 * torch.eye(len(x_ND), dtype=x_ND.dtype)


def posterior(kernel: Kernel, support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [Q, 1] of y at x [Q, D], given the support: exact, in float64."""
    s_SD, y_S1, x_QD = only(support.x).double(), support.y.double(), x.double()
    cross_SQ = kernel.between(s_SD, x_QD)
    half_SS = torch.linalg.cholesky(kernel.noisy(s_SD))
    solved_SQ = torch.cholesky_solve(cross_SQ, half_SS)
    variance_Q = kernel.amplitude**2 + kernel.noise**2 - (cross_SQ * solved_SQ).sum(0)
    return solved_SQ.T @ y_S1, variance_Q[:, None]


def exact(kernel: Kernel, episode: Episode) -> Tensor:
    """Negative log-likelihood [Q] of each query under the posterior: on average no predictor has less."""
    mean_Q1, variance_Q1 = posterior(kernel, episode.support, only(episode.query.x))
    squared = (episode.query.y.double() - mean_Q1).square() / variance_Q1
    return ((squared + variance_Q1.log() + math.log(2 * math.pi)) / 2)[:, 0]
