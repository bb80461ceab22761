"""Meta-SGD: learned element-wise inner rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import NonNegativeInt
from pydantic.dataclasses import dataclass

from raymeta.adaptation.descent import RATES, Descent, LossReduction, full_descent, steps_in
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import DescentAlgorithm
from raymeta.options import STRICT
from raymeta.tasks.episodes import Examples
from raymeta.tree import Params


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetaSGD(DescentAlgorithm):
    """Li, Zhou, Chen, Li. Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. arXiv:1707.09835.

    θ' = φ − a ⊙ ∇L_S(φ) with one rate per parameter element, shared by all tasks and free to become negative; the
    outer loop learns (φ, a) through ∇L_Q(θ'), second order. More than one step (not in the paper) reuses the rates.
    """

    inner_steps: NonNegativeInt = 1
    """inner steps K in training"""
    test_inner_steps: NonNegativeInt | None = None
    """inner steps at validation and test; the same as `inner_steps` unless given"""
    init_lr: tuple[float, float] = (0.005, 0.1)
    """the rates are drawn uniformly from this range at the start"""
    inner_loss_reduction: LossReduction = "mean"
    """`mean` cross-entropy, or `sum_over_classes`: `way` times that"""

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        low, high = self.init_lr
        rates = {
            RATES + name: low + (high - low) * torch.rand(p.shape, generator=generator, dtype=p.dtype)
            for name, p in params.items()
        }
        learned = super().init(problem, params, generator)
        return learned._replace(params=params | rates)

    def outer_of(self, name: str) -> Mapping[str, Any]:
        return {"weight_decay": 0.0} if name.startswith(RATES) else {}

    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        return full_descent(
            problem,
            learned,
            support,
            phase,
            rates=lambda values, step: {n.removeprefix(RATES): p for n, p in values.items() if n.startswith(RATES)},
            num_steps=steps_in(phase, self.inner_steps, self.test_inner_steps),
            reduction=self.inner_loss_reduction,
            rule=self.rule,
        )
