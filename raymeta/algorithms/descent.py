"""What the methods that adapt by gradient descent share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Self

from pydantic import Field, PositiveFloat, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.algorithms.base import Adaptation, Algorithm, Noise
from raymeta.algorithms.checkpointing import checkpointed_gradient
from raymeta.algorithms.inner import Descent
from raymeta.algorithms.problem import Learned, Phase, Problem
from raymeta.algorithms.rules import InnerOptimizer, InnerRule
from raymeta.options import STRICT
from raymeta.tasks.base import Episode, Examples
from raymeta.tree import Params


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DescentAlgorithm(Algorithm):
    """Base of the methods that adapt by gradient descent, whose inner steps can be checkpointed."""

    inner_optimizer: InnerOptimizer = "sgd"
    """rule of the inner steps: plain gradient descent, or `adam` (fresh moments for each task)"""
    inner_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """momentum of inner `sgd`: the step follows v ← momentum · v + gradient"""
    inner_clip_norm: PositiveFloat | None = None
    """largest global norm of an inner gradient; larger ones are scaled down"""

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.inner_momentum and self.inner_optimizer != "sgd":
            raise ValueError("inner_momentum is of inner_optimizer sgd: leave it out with adam, which has its own")
        return self

    @property
    def rule(self) -> InnerRule:
        return InnerRule(self.inner_optimizer, self.inner_momentum, self.inner_clip_norm)

    @abstractmethod
    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        """The inner loop on `support`; of `learned.params` it may use the names only."""

    def loss_weights(self, num_steps: int) -> dict[int, float]:
        """Weights of the query losses in the outer loss, by the inner steps done before each."""
        return {num_steps: 1.0}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        return self.descent(problem, learned, support, phase).adaptation(learned.params)

    def task_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Params, Params, dict[str, Tensor]]:
        if problem.checkpoint_inner_steps:
            descent = self.descent(problem, learned, episode.support, phase)
            if descent.num_steps and not descent.first_order:
                return checkpointed_gradient(problem, learned, episode, descent, self.loss_weights(descent.num_steps))
        return super().task_gradient(problem, learned, episode, noise=noise, phase=phase)
