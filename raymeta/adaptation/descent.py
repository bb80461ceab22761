"""Inner-loop gradient descent as a pure function: the one engine of the MAML family."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from raymeta.adaptation.inner_rules import InnerRule
from raymeta.adaptation.outcome import Adaptation, Predictor
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.autodiff.recompute import Link
from raymeta.errors import ConfigError
from raymeta.models.layers.inner_step import inner_step
from raymeta.tasks.episodes import Examples
from raymeta.tasks.inputs import Inputs
from raymeta.tree import Params, detach, select

SGD = InnerRule()
LossReduction = Literal["mean", "sum_over_classes"]
Rates = Callable[[Params, int], float | Params]
"""Inner learning rates of values in an inner step, which is counted from 0."""
RATES = "inner_lr/"
"""Prefix of learned inner rates among the parameters; the outer optimiser never decays them."""


class Trajectory(NamedTuple):
    """Parameters before and after each inner step [K + 1], the loss before each step [K], the rule's state at last."""

    params: list[Params]
    losses: list[Tensor]
    state: Params

    @property
    def first_loss(self) -> Tensor | None:
        return self.losses[0] if self.losses else None


def descend(
    loss: Callable[[Params], Tensor],
    params: Params,
    rates: Callable[[int], float | Params],
    *,
    num_steps: int,
    first_order: bool = False,
    rule: InnerRule = SGD,
    precondition: Callable[[Params], Params] = lambda gradient: gradient,
    start: int = 0,
    state: Params | None = None,
) -> Trajectory:
    """`num_steps` steps θ ← θ − rate · d from `params`, where the `rule` makes d of ∇loss(θ), preconditioned.

    Differentiable with respect to `params`. Steps before these, `start` of them, left the rule's `state`. Layers see
    which step is at hand (`inner_step`).

    With `first_order` every derivative of the inner gradients is dropped, those with respect to whatever else the loss
    reads too: the trajectory has the same values, and its derivative with respect to `params` is the identity. Nothing
    of the inner gradients is then recorded.
    """
    theta, trajectory, losses, kept = params, [params], [], state or {}
    for step in range(start, start + num_steps):
        with torch.no_grad() if first_order else nullcontext():
            with inner_step(step):
                gradient, value = gradient_and_value(loss, detach(theta) if first_order else theta)
            direction, kept = rule.direction(precondition(gradient), kept, step)
        losses.append(value)
        rate = rates(step)
        theta = {
            name: value - (rate if isinstance(rate, float) else rate[name]) * direction[name]
            for name, value in theta.items()
        }
        trajectory.append(theta)
    return Trajectory(trajectory, losses, kept)


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
    rates: Rates
    """inner learning rates of values"""
    predictors: Callable[[Params, Sequence[Params]], list[Predictor]]
    """of values with each of several θ in place of theirs"""
    num_steps: int
    first_order: bool = False
    prepare: Link | None = None
    """what all steps share, computed once"""
    rule: InnerRule = SGD
    precondition: Callable[[Params, Params], Params] | None = None
    """of values and an inner gradient: what takes the gradient's place"""
    start: Params = {}
    """values to begin with which are not learned, such as a context of zeros"""

    def theta(self, values: Params) -> Params:
        return {name: values[name] for name in self.adapted}

    def run(self, values: Params, num_steps: int, start: int = 0) -> Trajectory:
        """Steps from the θ in `values`, where the rule's state of `start` steps before them is too."""
        return descend(
            lambda theta: self.loss(values | theta),
            self.theta(values),
            lambda step: self.rates(values, step),
            num_steps=num_steps,
            first_order=self.first_order,
            rule=self.rule,
            precondition=lambda gradient: self.precondition(values, gradient) if self.precondition else gradient,
            start=start,
            state={name: values[name] for name in self.rule.state_names(self.adapted)} if start else None,
        )

    def adaptation(self, params: Params) -> Adaptation:
        """All steps from what was learned, and a predictor before and after each."""
        values = params | self.start if self.prepare is None else params | self.start | self.prepare.call(params)
        trajectory = self.run(values, self.num_steps)
        predictors = enumerate(self.predictors(values, trajectory.params))
        return Adaptation([after(num_steps, predict) for num_steps, predict in predictors], trajectory.first_loss)


def after(num_steps: int, predict: Predictor) -> Predictor:
    """`predict` as it is after so many inner steps: layers see the last of them."""

    def call(x: Inputs) -> Tensor:
        with inner_step(max(0, num_steps - 1)):
            return predict(x)

    return call


def _require_matches(patterns: tuple[str, ...], names: Collection[str]) -> None:
    """Each of the patterns must match some parameter: one that is misspelt would adapt less than was meant."""
    if patterns == ("*",) and names:
        return
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
    if idle or not patterns:
        told = ", ".join(idle) or "[]"
        raise ConfigError(f"algorithm.adapt_only {told} matches no parameter; the model has {', '.join(sorted(names))}")


def adaptable(problem: Problem, learned: Learned, patterns: tuple[str, ...] = ("*",)) -> tuple[str, ...]:
    """Names of the model's parameters that match one of the shell-style `patterns`, in their order.

    Raises `ConfigError` where a pattern matches none.
    """
    _require_matches(patterns, problem.param_names)
    return tuple(select({n: p for n, p in learned.params.items() if n in problem.param_names}, patterns))


def full_descent(
    problem: Problem,
    learned: Learned,
    support: Examples,
    phase: Phase,
    *,
    rates: Rates,
    num_steps: int,
    first_order: bool = False,
    reduction: LossReduction = "mean",
    adapted: tuple[str, ...] | None = None,
    rule: InnerRule = SGD,
) -> Descent:
    """Gradient descent on the support loss of the whole model, in all of its parameters unless `adapted` names some."""
    if adapted is None:
        adapted = adaptable(problem, learned)
    scale = loss_scale(reduction, phase)

    def support_loss(values: Params) -> Tensor:
        return scale * problem.loss(problem.predict(learned._replace(params=values), support.x, phase), support.y)

    def predictor(values: Params) -> Predictor:
        return lambda x: problem.predict(learned._replace(params=values), x, phase, support_x=support.x)

    return Descent(
        adapted=adapted,
        fixed=tuple(n for n in learned.params if n not in adapted),
        queried=tuple(n for n in learned.params if n in problem.param_names),
        loss=support_loss,
        rates=rates,
        predictors=lambda values, thetas: [predictor(values | theta) for theta in thetas],
        num_steps=num_steps,
        first_order=first_order,
        rule=rule,
    )


class FixedRate(Protocol):
    """Options of a method whose inner steps have one rate."""

    @property
    def inner_lr(self) -> float: ...
    @property
    def inner_steps(self) -> int: ...
    @property
    def test_inner_steps(self) -> int | None: ...
    @property
    def first_order(self) -> bool: ...
    @property
    def inner_loss_reduction(self) -> LossReduction: ...
    @property
    def rule(self) -> InnerRule: ...


def fixed_rate_descent(
    options: FixedRate,
    problem: Problem,
    learned: Learned,
    support: Examples,
    phase: Phase,
    adapted: tuple[str, ...] | None = None,
) -> Descent:
    """`full_descent` as the options of a method say."""
    return full_descent(
        problem,
        learned,
        support,
        phase,
        rates=lambda values, step: options.inner_lr,
        num_steps=steps_in(phase, options.inner_steps, options.test_inner_steps),
        first_order=options.first_order,
        reduction=options.inner_loss_reduction,
        adapted=adapted,
        rule=options.rule,
    )
