"""ANIL: almost no inner loop."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.algorithms.base import Adaptation, Algorithm, Noise, Predictor
from raymeta.algorithms.inner import LossReduction, descend, loss_scale, steps_in
from raymeta.algorithms.problem import Learned, Phase, Problem
from raymeta.options import STRICT
from raymeta.tasks.base import Examples
from raymeta.tree import Params, select


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ANIL(Algorithm):
    """Raghu, Raghu, Bengio, Vinyals. Rapid Learning or Feature Reuse? ICLR 2020.

    With φ = (body ψ, head h), inner: h_{k+1} = h_k − α ∇_h L_S(ψ, h_k), ψ fixed. Outer: ∇_(ψ,h) L_Q(ψ, h_K), through
    all K steps of the head. Equals MAML with rate 0 on the body; the support set passes the body once.
    """

    inner_lr: NonNegativeFloat = 0.1
    """inner learning rate α of the head"""
    inner_steps: NonNegativeInt = 5
    """inner steps K in training"""
    test_inner_steps: NonNegativeInt | None = None
    """inner steps at validation and test; the same as `inner_steps` unless given"""
    first_order: bool = False
    """drop the derivatives of the inner gradients"""
    inner_loss_reduction: LossReduction = "mean"
    """`mean` cross-entropy, or `sum_over_classes`: `way` times that"""

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        z_SD = problem.features(learned, support.x, phase)
        scale = loss_scale(self.inner_loss_reduction, phase)

        def support_loss(head: Params) -> Tensor:
            return scale * problem.loss(problem.classify(head, z_SD), support.y)

        head = select(learned.params, (f"{problem.head_name}.*",))
        num_steps = steps_in(phase, self.inner_steps, self.test_inner_steps)
        trajectory = descend(support_loss, head, self.inner_lr, num_steps=num_steps, first_order=self.first_order)
        embed = once(lambda x: problem.features(learned, x, phase, support_x=support.x))

        def predictor(head: Params) -> Predictor:
            return lambda x: problem.classify(head, embed(x))

        return Adaptation([predictor(head) for head in trajectory.params], trajectory.first_loss)


def once(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`function` remembering its last result, since the predictors of a task all see the same queries."""
    last: list[tuple[Tensor, Tensor]] = []

    def call(x: Tensor) -> Tensor:
        if not last or last[0][0] is not x:
            last[:] = [(x, function(x))]
        return last[0][1]

    return call
