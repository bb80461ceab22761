"""Inner-loop gradient descent as a pure function: the one engine of the MAML family."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from torch import Tensor

from raymeta.algorithms.base import Adaptation, Predictor
from raymeta.algorithms.chain import Link
from raymeta.algorithms.problem import Learned, Phase, Problem
from raymeta.errors import ConfigError
from raymeta.models.derivatives import gradient_and_value
from raymeta.tasks.base import Examples
from raymeta.tree import Params, detach, select, tree_map

LossReduction = Literal["mean", "sum_over_classes"]


class Trajectory(NamedTuple):
    """Parameters before and after each inner step [K + 1], and the loss before each step [K]."""

    params: list[Params]
    losses: list[Tensor]

    @property
    def first_loss(self) -> Tensor | None:
        return self.losses[0] if self.losses else None


def descend(
    loss: Callable[[Params], Tensor],
    params: Params,
    rates: float | Params,
    *,
    num_steps: int,
    first_order: bool = False,
) -> Trajectory:
    """`num_steps` steps θ ← θ − rate · ∇loss(θ) from `params`, differentiable with respect to them.

    With `first_order` every derivative of the inner gradients is dropped: the trajectory has the same values, and its
    derivative with respect to `params` is the identity. Nothing of the inner loop is then recorded.
    """
    start = detach(params) if first_order else params
    theta, trajectory, losses = start, [start], []
    for _ in range(num_steps):
        gradient, value = gradient_and_value(loss, theta)
        losses.append(value)
        theta = {
            name: value - (rates if isinstance(rates, float) else rates[name]) * gradient[name]
            for name, value in theta.items()
        }
        trajectory.append(theta)
    if first_order:
        # θ + (φ − sg φ) equals θ exactly, since φ − sg φ is exactly zero, and has derivative one.
        trajectory = [tree_map(lambda t, p, s: t + (p - s), theta, params, start) for theta in trajectory]
    return Trajectory(trajectory, losses)


def steps_in(phase: Phase, training: int, test: int | None) -> int:
    """The number of inner steps in `phase`."""
    if phase.inner_steps is not None:
        return phase.inner_steps
    return training if phase.training or test is None else test


def loss_scale(reduction: LossReduction, phase: Phase) -> int:
    """Factor on the mean loss: `sum_over_classes` is `way` times the mean, the scale of MAML's published rates."""
    return phase.way if reduction == "sum_over_classes" and phase.way else 1


class Descent(NamedTuple):
    """An inner loop of gradient descent as functions of named tensors alone, so that any part can be computed again.

    "Values" are what is learned and what `prepare` adds, by name; the functions must get from nowhere else what is to
    be differentiated.
    """

    adapted: tuple[str, ...]
    """names of what the steps change, θ"""
    fixed: tuple[str, ...]
    """names of what else a step reads"""
    queried: tuple[str, ...]
    """names of what a predictor reads"""
    loss: Callable[[Params], Tensor]
    """the support loss of values"""
    rates: Callable[[Params], float | Params]
    """inner learning rates of values"""
    predictors: Callable[[Params, Sequence[Params]], list[Predictor]]
    """of values with each of several θ in place of theirs"""
    num_steps: int
    first_order: bool = False
    prepare: Link | None = None
    """what all steps share, computed once"""

    def theta(self, values: Params) -> Params:
        return {name: values[name] for name in self.adapted}

    def run(self, values: Params, num_steps: int) -> Trajectory:
        """Steps from the θ in `values`."""
        return descend(
            lambda theta: self.loss(values | theta),
            self.theta(values),
            self.rates(values),
            num_steps=num_steps,
            first_order=self.first_order,
        )

    def adaptation(self, params: Params) -> Adaptation:
        """All steps from what was learned, and a predictor before and after each."""
        values = params if self.prepare is None else params | self.prepare.call(params)
        trajectory = self.run(values, self.num_steps)
        return Adaptation(self.predictors(values, trajectory.params), trajectory.first_loss)


def _require_matches(patterns: tuple[str, ...], names: Collection[str]) -> None:
    """Each of the patterns must match some parameter: one that is misspelt would adapt less than was meant."""
    if patterns == ("*",) and names:
        return
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
    if idle or not patterns:
        told = ", ".join(idle) or "[]"
        raise ConfigError(f"algorithm.adapt_only {told} matches no parameter; the model has {', '.join(sorted(names))}")


def full_descent(
    problem: Problem,
    learned: Learned,
    support: Examples,
    phase: Phase,
    *,
    rates: Callable[[Params], float | Params],
    num_steps: int,
    first_order: bool = False,
    reduction: LossReduction = "mean",
    adapt_only: tuple[str, ...] = ("*",),
) -> Descent:
    """Gradient descent on the support loss of the whole model.

    Raises `ConfigError` where a pattern of `adapt_only` matches no parameter.
    """
    _require_matches(adapt_only, problem.param_names)
    adapted = tuple(select({n: p for n, p in learned.params.items() if n in problem.param_names}, adapt_only))
    scale = loss_scale(reduction, phase)

    def support_loss(values: Params) -> Tensor:
        return scale * problem.loss(problem.forward(learned._replace(params=values), support.x, phase), support.y)

    def predictor(values: Params) -> Predictor:
        return lambda x: problem.forward(learned._replace(params=values), x, phase, support_x=support.x)

    return Descent(
        adapted=adapted,
        fixed=tuple(n for n in learned.params if n not in adapted),
        queried=tuple(n for n in learned.params if n in problem.param_names),
        loss=support_loss,
        rates=rates,
        predictors=lambda values, thetas: [predictor(values | theta) for theta in thetas],
        num_steps=num_steps,
        first_order=first_order,
    )
