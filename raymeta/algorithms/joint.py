"""Joint training: one model for all tasks, the reference that meta-learning must beat."""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass

from raymeta.adaptation.descent import Descent, LossReduction, full_descent, steps_in
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import DescentAlgorithm
from raymeta.options import STRICT
from raymeta.tasks.episodes import Examples


@dataclass(frozen=True, kw_only=True, config=STRICT)
class JointTraining(DescentAlgorithm):
    """Minimise the mean over tasks of L_Q(φ) without adaptation; at validation and test, fine-tune on the support.

    Equals MAML with rate 0. Labels are permuted in every episode, so on classification it stays at chance before
    fine-tuning, and on sinusoids its un-adapted error tends to 3.01.
    """

    inner_lr: NonNegativeFloat = 0.01
    """learning rate of the fine-tuning"""
    test_inner_steps: NonNegativeInt = 10
    """fine-tuning steps at validation and test"""
    inner_loss_reduction: LossReduction = "mean"
    """`mean` cross-entropy, or `sum_over_classes`: `way` times that"""

    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        return full_descent(
            problem,
            learned,
            support,
            phase,
            rates=lambda values, step: self.inner_lr,
            num_steps=0 if phase.training else steps_in(phase, 0, self.test_inner_steps),
            reduction=self.inner_loss_reduction,
            rule=self.rule,
        )
