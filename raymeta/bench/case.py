"""One setting that is measured. The data are random; times do not depend on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from raymeta.algorithms.base import Algorithm
from raymeta.algorithms.reptile import Reptile
from raymeta.keys import SPLITS
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples
from raymeta.tasks.recorded import Recorded

Work = Literal["gradient", "evaluation", "episodes"]
"""What a path computes: the sum of the tasks' meta-gradients, their scores, or the episodes themselves."""
CLASSES = 64
"""Classes of which the tasks of a case would be drawn."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting. Regression has one output and `way` 1."""

    name: str
    algorithm: Algorithm
    model: ModelSpec
    input_shape: tuple[int, ...]
    way: int
    shot: int
    query_shot: int
    num_tasks: int
    goal: Goal = "classification"
    dtype: torch.dtype = torch.float32
    work: Work = "gradient"
    drawn_from: TaskSet | None = None
    """where episodes are the work"""

    def module(self) -> nn.Module:
        """The network, always with the same parameters."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.algorithm.network(self.model, self.tasks).to(self.dtype)

    def body(self) -> nn.Module:
        """The model without what a method has beside it, or puts into it."""
        module = self.module()
        if isinstance(module, Beside):
            return module.body
        return self.model.build(self.input_shape, self.algorithm.num_outputs(self.tasks)).to(self.dtype)

    @property
    def tasks(self) -> Recorded:
        """What a method may ask of the tasks before there are any."""
        size = (self.way if self.goal == "classification" else 0, self.shot, self.query_shot)
        return Recorded(
            kind=self.goal,
            shape=self.input_shape,
            outputs=self.way,
            sizes=dict.fromkeys(SPLITS, size),
            classes=dict.fromkeys(SPLITS, max(CLASSES, self.way) if self.goal == "classification" else 0),
        )

    def episodes(self) -> Episode:
        """A batch of tasks, always the same."""
        generator = torch.Generator().manual_seed(0)

        def side(shot: int) -> Examples:
            n = self.way * shot
            x = torch.rand((self.num_tasks, n, *self.input_shape), generator=generator).to(self.dtype)
            if self.goal == "regression":
                return Examples(10 * x - 5, torch.rand((self.num_tasks, n, 1), generator=generator).to(self.dtype))
            y: Tensor = torch.arange(self.way).repeat_interleave(shot).expand(self.num_tasks, n).contiguous()
            return Examples(x, y, y)

        return Episode(side(self.shot), side(self.query_shot))

    @property
    def inner_steps(self) -> int:
        return int(getattr(self.algorithm, "inner_steps", 0))

    @property
    def first_order(self) -> bool:
        return isinstance(self.algorithm, Reptile) or bool(getattr(self.algorithm, "first_order", False))
