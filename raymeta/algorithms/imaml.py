"""iMAML: meta-gradients of the solution of the inner problem, not of the way to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.descent import Descent, LossReduction, full_descent, steps_in
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import DescentAlgorithm
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tree import Params, tree_map


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IMAML(DescentAlgorithm):
    """Rajeswaran, Finn, Kakade, Levine. Meta-Learning with Implicit Gradients. NeurIPS 2019.

    Inner: K steps on F(φ) = L_S(φ) + λ/2 ‖φ − θ‖² from φ = θ. Outer: (I + ∇²L_S(φ)/λ)⁻¹ ∇L_Q(φ), the derivative of
    L_Q at the minimiser of F by the implicit function theorem, solved by a fixed number of conjugate-gradient steps
    whose products with ∇²F = ∇²L_S + λI are gradients of slopes. Nothing is differentiated through the K steps, so
    memory does not grow with them. The formula holds as far as the steps reach the minimiser, and where ∇²F is
    positive definite: a larger `proximal` helps both.

    Differences from the authors' code:
    1. It takes K steps on L_S alone and one step on the proximal term after them; ours descend on F, as the paper says.
    2. It solves ((1 + damping) I + ∇²L_S/(λ + 10)) x = ∇L_Q with damping 1; ours solves the paper's equation, and
       `cg_damping` adds to the identity where that is wanted.
    3. With dropout, each inner step and each product draws masks of its own.
    """

    inner_lr: NonNegativeFloat = 0.1
    """inner learning rate"""
    inner_steps: NonNegativeInt = 16
    """inner steps K in training"""
    test_inner_steps: NonNegativeInt | None = None
    """inner steps at validation and test; the same as `inner_steps` unless given"""
    proximal: PositiveFloat = 2.0
    """weight λ of the term that keeps adapted parameters near what is learned"""
    cg_steps: NonNegativeInt = 5
    """conjugate-gradient steps; with 0 the gradient at the solution is taken as it is, as in FOMAML"""
    cg_damping: NonNegativeFloat = 0.0
    """added to the identity in the equation that is solved"""
    inner_loss_reduction: LossReduction = "mean"
    """`mean` cross-entropy, or `sum_over_classes`: `way` times that"""

    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        free = full_descent(
            problem,
            learned,
            support,
            phase,
            rates=lambda values, step: self.inner_lr,
            num_steps=steps_in(phase, self.inner_steps, self.test_inner_steps),
            reduction=self.inner_loss_reduction,
            rule=self.rule,
        )

        def objective(values: Params) -> Tensor:
            away = {name: values[name] - learned.params[name] for name in free.adapted}
            return free.loss(values) + self.proximal / 2 * dot(away, away)

        return free._replace(loss=objective)

    def task_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        descent = self.descent(problem, learned, episode.support, phase)
        with torch.no_grad():
            trajectory = descent.run(learned.params, descent.num_steps)
        solution = trajectory.params[-1]
        adapted, done = learned._replace(params=learned.params | solution), phase._replace(inner_steps=0)
        query = super().task_gradient(problem, adapted, episode, noise=noise, phase=done)

        def operator(x: Params) -> Params:
            curved = curvature(lambda phi: descent.loss(learned.params | phi), solution, x)
            return tree_map(lambda c, own: c / self.proximal + self.cg_damping * own, curved, x)

        at_solution = {name: query.sums[name] for name in solution}
        implicit = conjugate_gradients(operator, at_solution, self.cg_steps) if self.cg_steps else at_solution
        first = {} if trajectory.first_loss is None else {"train/support_loss": trajectory.first_loss.detach()}
        return query._replace(sums=query.sums | implicit, metrics=query.metrics | first)


def dot(first: Params, second: Params) -> Tensor:
    """Inner product of two sets of named tensors, a scalar."""
    return torch.stack([(value * second[name]).sum() for name, value in first.items()]).sum()


def curvature(loss: Callable[[Params], Tensor], params: Params, direction: Params) -> Params:
    """∇²loss(params) · direction, as the gradient of the slope along `direction`."""

    def slope(params: Params) -> Tensor:
        return dot(gradient_and_value(loss, params)[0], direction)

    return gradient_and_value(slope, params)[0]


def conjugate_gradients(operator: Callable[[Params], Params], wanted: Params, num_steps: int) -> Params:
    """x with operator(x) = `wanted`, after `num_steps` steps from 0; the operator is linear, symmetric and positive.

    Steps after an exact solution change nothing. There are always as many: tasks that are computed side by side could
    not stop at different ones.
    """
    x = tree_map(torch.zeros_like, wanted)
    residual, direction, square = wanted, wanted, dot(wanted, wanted)
    for _ in range(num_steps):
        image = operator(direction)
        length = _ratio(square, dot(direction, image))
        x = tree_map(lambda a, d, length=length: a + length * d, x, direction)
        residual = tree_map(lambda r, i, length=length: r - length * i, residual, image)
        before, square = square, dot(residual, residual)
        share = _ratio(square, before)
        direction = tree_map(lambda r, d, share=share: r + share * d, residual, direction)
    return x


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Their quotient, and 0 where nothing is left to divide by."""
    return torch.where(below == 0, torch.zeros_like(above), above / below)
