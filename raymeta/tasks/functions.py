"""Base of the task sets whose tasks are functions of one number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.keys import Split, TaskKey, uniforms
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, one_task
from raymeta.tree import FloatArray

X_RANGE = (-5.0, 5.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Functions(TaskSet):
    """y = f(x) with x ~ U[−5, 5] and f drawn for each task. All splits share the distribution; their keys differ."""

    goal: ClassVar[Goal] = "regression"
    num_draws: ClassVar[int]
    """numbers in [0, 1) that a function is made of"""

    shot: PositiveInt = 10
    """support points of a task"""
    query_shot: PositiveInt = 100
    """query points of a validation or test task"""
    train_query_shot: NonNegativeInt | None = None
    """query points of a training task; the same as `shot` unless given"""

    @abstractmethod
    def values(self, draws: FloatArray, x: FloatArray) -> FloatArray:
        """y [T, n] at x [T, n] of the functions that are made of `draws` [T, num_draws]."""

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

    def episode(self, key: TaskKey) -> Episode:
        support, query = self.episodes([key])
        return Episode(one_task(support, 0), one_task(query, 0))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        size = self.size(keys[0].split)
        draws = uniforms(keys, self.num_draws + size.shot + size.query_shot)
        x = X_RANGE[0] + (X_RANGE[1] - X_RANGE[0]) * draws[:, self.num_draws :]
        y = self.values(draws[:, : self.num_draws], x)
        sides = [torch.from_numpy(v.astype(np.float32))[..., None] for v in (x, y)]
        return Episode(
            Examples(*(v[:, : size.shot] for v in sides)),
            Examples(*(v[:, size.shot :] for v in sides)),
        )
