"""Two-dimensional navigation: reach a goal that only the reward tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.keys import Split, TaskKey, uniforms
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, one_task

REACH, MOST = 0.5, 0.1
"""Goals lie within `REACH` of the start on each axis; a velocity is cut at `MOST` on each axis."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Navigation(TaskSet):
    """Finn, Abbeel, Levine, ICML 2017, section 5.3: from the origin to a goal ~ U[−0.5, 0.5]². The state is the
    position, an action is a velocity, the reward is −‖position − goal‖².

    Support and query x [1, 2] hold the goal, which a policy does not see; y is zero. `moved` and `reward` are the
    dynamics, plain functions of tensors, so that whole trajectories are computed where the policy is. Difference from
    the paper: an episode does not end early at the goal.
    """

    goal: ClassVar[Goal] = "regression"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def num_outputs(self) -> int:
        return 2

    def num_classes(self, split: Split) -> int:
        return 0

    def size(self, split: Split) -> Size:
        return Size(1, 1, 1)

    def episode(self, key: TaskKey) -> Episode:
        support, query = self.episodes([key])
        return Episode(one_task(support, 0), one_task(query, 0))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        goals = (torch.from_numpy(uniforms(keys, 2)).float() * 2 - 1)[:, None] * REACH
        sides = [Examples(goals.clone(), torch.zeros_like(goals)) for _ in range(2)]
        return Episode(*sides)


def moved(position: Tensor, action: Tensor) -> Tensor:
    """Positions [n, 2] after velocities [n, 2]."""
    return position + action.clamp(-MOST, MOST)


def reward(position: Tensor, goal: Tensor) -> Tensor:
    """Rewards [n] at positions [n, 2]."""
    return -(position - goal).square().sum(-1)
