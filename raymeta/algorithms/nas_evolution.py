"""Regularised evolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.ageing import fittest, youngest
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import Compute, Outer
from raymeta.algorithms.search import RECORD, ArchitectureSearch, evaluated, num_operations, remember_best
from raymeta.keys import TaskKey
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Noise
from raymeta.tasks.inputs import only


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegularizedEvolution(ArchitectureSearch):
    """Real, Aggarwal, Huang, Le. Regularized Evolution for Image Classifier Architecture Search. AAAI 2019.

    A task is one evaluation. The first `population` architectures are random; afterwards each task samples `sample` of
    the population, changes one operation of the best of them, and looks its accuracy up. The driver appends the
    children in the order of their tasks and removes the oldest. Nothing is differentiated: workers draw and evaluate,
    the population lies in memory. With a `population` above the number of evaluations it is random search.

    Difference from the paper: the `meta_batch_size` children of a step see the population before it, as asynchronous
    evaluations do.
    """

    population: PositiveInt = 50
    """architectures that are alive"""
    sample: PositiveInt = 12
    """architectures that compete to be a parent"""

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
        remember_best(outer, born)
        everyone = {name: torch.cat([alive[name], born[name]]) if alive else born[name] for name in born}
        living = {name: youngest(values, self.population).clone() for name, values in everyone.items()}
        outer.memory = {RECORD: outer.memory[RECORD]} | living
        return {}

    def random_child(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """A random cell with its accuracy."""
        return evaluated(episode, _floor(noise["draws"][self.sample + 2 :], num_operations(episode)))

    def child(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """The best of a sample of the population with one operation changed, and its accuracy."""
        alive, draws = learned.given, noise["draws"]
        places = _floor(draws[: self.sample], len(alive["cell"])).long()
        parent = alive["cell"][fittest(alive["accuracy"], places)]
        edge, turn = _floor(draws[self.sample], len(parent)), draws[self.sample + 1]
        others = num_operations(episode) - 1
        changed = (parent + 1 + _floor(turn, others)) % (others + 1)
        is_changed = torch.arange(len(parent), device=parent.device) == edge
        return evaluated(episode, torch.where(is_changed, changed, parent))


def _floor(draws: Tensor, count: int | Tensor) -> Tensor:
    """Whole numbers below `count` of uniform ones, as floats."""
    return torch.floor(draws * count)
