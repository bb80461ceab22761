"""A mixture of four families of functions, for methods that find out which family a task is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.keys import Split, TaskKey, uniforms
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, one_task
from raymeta.tree import FloatArray

Family = Literal["sinusoid", "line", "quadratic", "cubic"]
X_RANGE = (-5.0, 5.0)
RANGES: Mapping[str, tuple[tuple[float, float], ...]] = MappingProxyType(
    {
        "sinusoid": ((0.1, 5.0), (0.8, 1.2), (0.0, 2 * np.pi)),
        "line": ((-3.0, 3.0), (-3.0, 3.0)),
        "quadratic": ((-0.2, 0.2), (-2.0, 2.0), (-3.0, 3.0)),
        "cubic": ((-0.1, 0.1), (-0.2, 0.2), (-2.0, 2.0), (-3.0, 3.0)),
    }
)
"""Of each family's coefficients: A, ω and b of A sin(ωx) + b; of polynomials those of the highest power first."""
_MOST = max(map(len, RANGES.values()))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mixture(TaskSet):
    """Each task is of one of four families, all equally likely (Yao et al., ICML 2019, section 5.1), x ~ U[−5, 5]:
    A sin(ωx) + b, Ax + b, Ax² + bx + c and Ax³ + bx² + cx + d, with coefficients from fixed ranges.

    As in the authors' code b is outside of the sine. All splits share the distribution; their keys differ.
    """

    goal: ClassVar[Goal] = "regression"

    families: tuple[Family, ...] = Field(default=get_args(Family), min_length=1)
    """families that tasks are drawn from"""
    shot: PositiveInt = 10
    """support points of a task"""
    query_shot: PositiveInt = 100
    """query points of a validation or test task"""
    train_query_shot: NonNegativeInt | None = None
    """query points of a training task; the same as `shot` unless given"""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1,)

    @property
    def num_outputs(self) -> int:
        return 1

    def num_classes(self, split: Split) -> int:
        return 0

    def size(self, split: Split) -> Size:
        training = self.shot if self.train_query_shot is None else self.train_query_shot
        return Size(1, self.shot, training if split == "train" else self.query_shot)

    def family(self, key: TaskKey) -> Family:
        """The family that the task of `key` is of."""
        return self._families(uniforms([key], 1))[0]

    def episode(self, key: TaskKey) -> Episode:
        support, query = self.episodes([key])
        return Episode(one_task(support, 0), one_task(query, 0))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        size = self.size(keys[0].split)
        draws = uniforms(keys, 1 + _MOST + size.shot + size.query_shot)
        x = X_RANGE[0] + (X_RANGE[1] - X_RANGE[0]) * draws[:, 1 + _MOST :]
        rows = zip(self._families(draws), draws[:, 1 : 1 + _MOST], x, strict=True)
        y = np.stack([value(family, coefficients(family, draw), points) for family, draw, points in rows])
        sides = [torch.from_numpy(v.astype(np.float32))[..., None] for v in (x, y)]
        return Episode(
            Examples(*(v[:, : size.shot] for v in sides)),
            Examples(*(v[:, size.shot :] for v in sides)),
        )

    def _families(self, draws: FloatArray) -> list[Family]:
        return [self.families[int(draw * len(self.families))] for draw in draws[:, 0]]


def coefficients(family: Family, draws: FloatArray) -> list[float]:
    """From numbers in [0, 1) to the ranges of a family."""
    return [low + (high - low) * float(draw) for (low, high), draw in zip(RANGES[family], draws, strict=False)]


def value(family: Family, coefficients: Sequence[float], x: FloatArray) -> FloatArray:
    """y at x."""
    if family == "sinusoid":
        amplitude, frequency, shift = coefficients
        result: FloatArray = amplitude * np.sin(frequency * x) + shift
    else:
        result = np.polyval(np.asarray(coefficients), x)
    return result
