"""Regularised evolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import Compute, Outer, ScoredAlgorithm
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.shapes import require_one
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Noise
from raymeta.tasks.inputs import only
from raymeta.trackers.scores import ScoreName

BEST = "best"
"""Name of what is learned: the best architecture so far [edges]."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegularizedEvolution(ScoredAlgorithm):
    """Real, Aggarwal, Huang, Le. Regularized Evolution for Image Classifier Architecture Search. AAAI 2019.

    A task is one evaluation. The first `population` architectures are random; afterwards each task samples `sample` of
    the population, changes one operation of the best of them, and looks its accuracy up. The driver appends the
    children in the order of their tasks and removes the oldest. Nothing is differentiated: workers draw and evaluate,
    the population lies in memory.

    Difference from the paper: the `meta_batch_size` children of a step see the population before it, as asynchronous
    evaluations do.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("regression",)
    uses_queries: ClassVar[bool] = False
    score: ClassVar[ScoreName | None] = "regret"

    population: PositiveInt = 50
    """architectures that are alive"""
    sample: PositiveInt = 12
    """architectures that compete to be a parent"""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        return nn.ParameterDict({BEST: torch.zeros(require_one("nas_evolution", tasks.input_shape))})

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        """Uniform numbers [T, sample + 2 + edges]: who competes, which edge changes and how, and a random cell."""
        if not phase.training:
            return {}
        width = self.sample + 2 + only(episodes.support.x).shape[-1]
        return {"draws": torch.from_numpy(np.stack([key.generator("noise").random(width) for key in keys]))}

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        alive = outer.memory
        is_young = not alive or len(alive["cell"]) < self.population
        born = compute("random_child" if is_young else "child", given=alive).tasks()
        first = born["accuracy"].argmax()
        if not alive or born["accuracy"][first] > alive["record"][0]:
            outer.assign({BEST: born["cell"][first]})
            alive = alive | {"record": born["accuracy"][first : first + 1].clone()}
        outer.memory = {"record": alive["record"]} | {name: self._aged(alive.get(name), born[name]) for name in born}
        return {}

    def random_child(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """A random cell with its accuracy."""
        return _evaluated(episode, _floor(noise["draws"][self.sample + 2 :], _num_operations(episode)))

    def child(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """The best of a sample of the population with one operation changed, and its accuracy."""
        alive, draws = learned.given, noise["draws"]
        places = _floor(draws[: self.sample], len(alive["cell"])).long()
        parent = alive["cell"][places[alive["accuracy"][places].argmax()]]
        edge, turn = _floor(draws[self.sample], len(parent)), draws[self.sample + 1]
        others = _num_operations(episode) - 1
        changed = (parent + 1 + _floor(turn, others)) % (others + 1)
        is_changed = torch.arange(len(parent), device=parent.device) == edge
        return _evaluated(episode, torch.where(is_changed, changed, parent))

    def scores(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> dict[str, Tensor]:
        """How far the best cell found is below the best of the table [T, 1]."""

        def one(episode: Episode, noise: Noise) -> dict[str, Tensor]:
            found = _accuracy(episode, learned.params[BEST])
            return {"regret": (episode.support.y.max() - found)[None], "accuracy": found[None]}

        result: dict[str, Tensor] = problem.map_over_tasks(one, episodes, noise)
        return result

    def _aged(self, alive: Tensor | None, born: Tensor) -> Tensor:
        """With the children and without the oldest."""
        everyone = born if alive is None else torch.cat([alive, born])
        return everyone[-self.population :].clone()


def _floor(draws: Tensor, count: int | Tensor) -> Tensor:
    """Whole numbers below `count` of uniform ones, as floats."""
    return torch.floor(draws * count)


def _num_operations(episode: Episode) -> Tensor:
    return only(episode.support.x).max() + 1


def _accuracy(episode: Episode, cell: Tensor) -> Tensor:
    """Of a cell, looked up in the table."""
    table, accuracies = only(episode.support.x), episode.support.y[:, 0]
    return torch.where((table == cell).all(1), accuracies, 0.0).sum()


def _evaluated(episode: Episode, cell: Tensor) -> Part:
    cell = cell.to(only(episode.support.x).dtype)
    accuracy = _accuracy(episode, cell)
    return Part({}, {"train/query_accuracy": accuracy}, {"cell": cell, "accuracy": accuracy})
