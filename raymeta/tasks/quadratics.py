"""Quadratic functions to be minimised, the first problem of learned optimisers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.keys import Split, TaskKey, uniforms
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, one_task
from raymeta.tasks.objective import Objective, squared_distance


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Quadratics(TaskSet):
    """f(θ) = ‖Wθ − y‖² with W and y ~ U[0, 1] (Andrychowicz et al., NIPS 2016, section 3.1): support x [rows, dim] is
    W, support y [rows, 1] is y. The queries are further rows of the same kind, which f does not know."""

    goal: ClassVar[Goal] = "regression"

    dim: PositiveInt = 10
    """dimension of θ"""
    rows: PositiveInt = 10
    """rows of W"""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.dim,)

    @property
    def num_outputs(self) -> int:
        return 1

    def num_classes(self, split: Split) -> int:
        return 0

    def size(self, split: Split) -> Size:
        return Size(1, self.rows, 1)

    def objective(self) -> Objective:
        return Objective(self.dim, squared_distance)

    def episode(self, key: TaskKey) -> Episode:
        support, query = self.episodes([key])
        return Episode(one_task(support, 0), one_task(query, 0))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        draws = torch.from_numpy(uniforms(keys, (self.rows + 1) * (self.dim + 1))).float()
        drawn = draws.view(len(keys), self.rows + 1, self.dim + 1)
        x, y = drawn[..., : self.dim].contiguous(), drawn[..., self.dim :].contiguous()
        return Episode(Examples(x[:, :-1], y[:, :-1]), Examples(x[:, -1:], y[:, -1:]))
