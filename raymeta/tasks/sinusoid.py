"""Sinusoid regression, the toy task distribution of the MAML paper."""

from __future__ import annotations

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

AMPLITUDE, PHASE, X_RANGE = (0.1, 5.0), (0.0, np.pi), (-5.0, 5.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sinusoid(TaskSet):
    """y = A sin(x − p) with A ~ U[0.1, 5], p ~ U[0, π], x ~ U[−5, 5] (Finn et al. 2017, section 5.1).

    All splits share the distribution; their keys differ. Predicting zero has expected squared error 4.2517, and no
    predictor that does not adapt is below 3.0057.
    """

    goal: ClassVar[Goal] = "regression"

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

    def episode(self, key: TaskKey) -> Episode:
        support, query = self.episodes([key])
        return Episode(one_task(support, 0), one_task(query, 0))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        size = self.size(keys[0].split)
        draws = uniforms(keys, 2 + size.shot + size.query_shot)
        amplitude, phase = (
            low + (high - low) * draws[:, i : i + 1] for i, (low, high) in enumerate((AMPLITUDE, PHASE))
        )
        x = X_RANGE[0] + (X_RANGE[1] - X_RANGE[0]) * draws[:, 2:]
        y = amplitude * np.sin(x - phase)
        sides = [torch.from_numpy(v.astype(np.float32))[..., None] for v in (x, y)]
        return Episode(
            Examples(*(v[:, : size.shot] for v in sides)),
            Examples(*(v[:, size.shot :] for v in sides)),
        )
