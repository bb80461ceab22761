"""MAML and first-order MAML."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import NonNegativeFloat, NonNegativeInt, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.descent import Descent, LossReduction, adaptable, fixed_rate_descent
from raymeta.adaptation.outcome import multi_step_loss
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import DescentAlgorithm
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Examples, Noise


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MAML(DescentAlgorithm):
    """Finn, Abbeel, Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. ICML 2017.

    Inner: θ_{k+1} = θ_k − α ∇L_S(θ_k), θ_0 = φ. Outer: the mean over tasks of ∇_φ L_Q(θ_K(φ)), differentiated through
    all K steps, or with `first_order` (FOMAML, section 5.2) ∇L_Q at θ_K applied to φ.

    Differences from the paper's code:
    1. Its loss is a vector divided by the shots, so its inner gradient is `way` times that of the mean
       cross-entropy; `inner_loss_reduction: sum_over_classes` restores that scale.
    2. Its batch norm has a shift and no gain and does not adapt it; ours has both, and they adapt like every
       parameter. `adapt` narrows what adapts.
    3. With `step_weights` the outer loss is Σ_k w_k L_Q(θ_k) (multi-step losses of MAML++, Antoniou et al. 2019).
    """

    inner_lr: NonNegativeFloat = 0.1
    """inner learning rate α"""
    inner_steps: NonNegativeInt = 1
    """inner steps K in training"""
    test_inner_steps: NonNegativeInt | None = None
    """inner steps at validation and test; the same as `inner_steps` unless given"""
    first_order: bool = False
    """drop the derivatives of the inner gradients (FOMAML)"""
    inner_loss_reduction: LossReduction = "mean"
    """`mean` cross-entropy, or `sum_over_classes`: `way` times that, the scale of the paper's rates"""
    step_weights: tuple[float, ...] | None = None
    """weights of the query loss after each of the `inner_steps` steps; only the last counts unless given"""
    adapt_only: tuple[str, ...] = ("*",)
    """shell-style patterns of the parameter names that adapt; all unless given"""

    @model_validator(mode="after")
    def _one_weight_per_step(self) -> MAML:
        if self.step_weights is not None and len(self.step_weights) != self.inner_steps:
            raise ValueError(f"step_weights has {len(self.step_weights)} entries for {self.inner_steps} inner_steps")
        return self

    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        adapted = adaptable(problem, learned, self.adapt_only)
        return fixed_rate_descent(self, problem, learned, support, phase, adapted)

    def loss_weights(self, num_steps: int, noise: Noise) -> Mapping[int, float | Tensor]:
        if self.step_weights is None:
            return super().loss_weights(num_steps, noise)
        return dict(enumerate(self.step_weights, start=1))

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.step_weights is None:
            return super().task_loss(problem, learned, episode, noise=noise, phase=phase)
        adaptation = self.adapt(problem, learned, episode.support, noise=noise, phase=phase)
        return multi_step_loss(problem, adaptation, episode.query, self.step_weights)
