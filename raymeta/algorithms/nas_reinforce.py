"""Architecture search by reinforcement learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.policy import BASELINE, moved, score_function
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import Compute, Outer
from raymeta.algorithms.search import BEST, ArchitectureSearch, evaluated, operations_of, remember_best
from raymeta.keys import TaskKey
from raymeta.models.layers.controller import Controller
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Noise
from raymeta.tasks.inputs import only
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.tree import Params

CONTROLLER = "controller"
"""Name of the network that chooses."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reinforce(ArchitectureSearch):
    """Zoph, Le. Neural Architecture Search with Reinforcement Learning. ICLR 2017, arXiv:1611.01578.

    A task is one evaluation: the controller π_ψ, an LSTM, samples an architecture a operation by operation, whose
    accuracy R is looked up. The outer step follows (R − b) ∇_ψ log π_ψ(a), summed over tasks (REINFORCE), where b is
    the moving mean of accuracies before this step. Nothing is differentiated through an evaluation.

    Differences from the paper: (1) the first step samples alone, so that b is known before anything is learned; (2) an
    entropy bonus can be added, as in ENAS (Pham et al., ICML 2018).
    """

    outer: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "lr": 6e-4}

    hidden: PositiveInt = 35
    """units of each LSTM layer of the controller"""
    layers: PositiveInt = 2
    """LSTM layers of the controller"""
    baseline_decay: float = Field(default=0.95, ge=0, lt=1)
    """share of the moving mean of accuracies that stays in each step"""
    entropy_weight: NonNegativeFloat = 0.0
    """weight of −log π(a) beside the accuracy, which keeps the controller from settling early"""

    def networks(self, tasks: TaskSet) -> Mapping[str, Controller]:
        return {CONTROLLER: Controller(operations_of(tasks), self.hidden, self.layers)}

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        """Uniform numbers [T, edges], one for each choice."""
        if not phase.training:
            return {}
        edges = only(episodes.support.x).shape[-1]
        return {"draws": torch.from_numpy(np.stack([key.generator("noise").random(edges) for key in keys]))}

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        baseline = outer.memory.get(BASELINE)
        first = baseline is None
        total = compute("sampled") if baseline is None else compute("policy_gradient", given={BASELINE: baseline})
        born = total.tasks()
        remember_best(outer, born)
        outer.memory = outer.memory | {BASELINE: moved(baseline, born["accuracy"], self.baseline_decay)}
        return {} if first else {OUTER_GRAD_NORM: outer.update(total.means())}

    def sampled(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """A cell that the controller chooses, and its accuracy."""
        return evaluated(episode, problem.beside(CONTROLLER, learned, noise["draws"], sample=True).detach())

    def policy_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """−(R − b) ∇ log π(a) of a sampled cell a, with its row."""
        part = self.sampled(problem, learned, episode, noise=noise, phase=phase)
        gradient = self.score_function(problem, learned, part.rows["cell"], part.rows["accuracy"])
        return part._replace(sums=gradient)

    def score_function(self, problem: Problem, learned: Learned, cell: Tensor, accuracy: Tensor) -> Params:
        """−(R − b) ∇ log π(a), where the entropy bonus is part of R."""
        own = {name: value for name, value in learned.params.items() if name != BEST}
        return score_function(problem, CONTROLLER, learned, own, cell, accuracy, entropy_weight=self.entropy_weight)
