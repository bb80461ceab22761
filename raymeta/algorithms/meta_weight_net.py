"""Meta-Weight-Net: a learned weight for each training example, by its loss."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.adaptation.weighted import gradient_on_queries, losses_of, slopes_along
from raymeta.algorithms.base import Compute, Outer, TrainedModel
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Noise
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.tree import Params

WEIGHTING = "weighting"
"""Name of the network beside the model."""
TOTAL, SLOPE = "|total", "|slope"
"""The sum of all weights, and the mean slope; no parameter's name holds a bar."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetaWeightNet(TrainedModel):
    """Shu, Xie, Yi, Zhao, Zhou, Xu, Meng. Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting.
    NeurIPS 2019.

    There is one classifier w for all tasks. The support sets of a step are its batch of training examples, whose labels
    may be wrong; the query sets are its clean batch. A network V_Θ maps the loss f_i of a training example to its
    weight in (0, 1). With G(Θ) = Σ_i V_Θ(f_i) ∇f_i(w) / Σ_i V_Θ(f_i), a step is:
    1. look ahead: ŵ(Θ) = w − η G(Θ);
    2. the gradient g of the clean loss at ŵ;
    3. Θ ← Θ − β ∇_Θ L_clean(ŵ(Θ)), where by the chain rule the gradient is that of −η ⟨G(Θ), g⟩ at fixed g;
    4. w ← w − η G(Θ) with the new Θ.
    Sums run over the examples of all tasks of the step. V reads f_i as a number: weights are not differentiated in w.
    Nothing adapts to a task: what is tested is w on the queries, so classes must mean the same in every task.

    Differences from the paper:
    1. Weights are divided by their sum. The paper divides by the number of examples (`normalize: false`), and V then
       saturates at 1 on very noisy labels.
    2. The outer options are those of w. Its look-ahead is a plain gradient step with the rate of the moment, whatever
       the optimiser, momentum and decay: the formula of 3. is that of SGD, as in the authors' code. Θ is stepped by
       Adam at `weighting_lr`.
    """

    one_by_one: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}

    hidden: PositiveInt = 100
    """size of the hidden layer of the weighting network"""
    weighting_lr: PositiveFloat = 1e-3
    """learning rate of the weighting network"""
    weighting_decay: NonNegativeFloat = 1e-4
    """weight decay of the weighting network"""
    normalize: bool = True
    """divide the weights by their sum; by the number of examples where false"""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        return Beside(super().network(spec, tasks), **{WEIGHTING: weighting_network(self.hidden)})

    def learned_parts(self, params: Params) -> Mapping[str, Params]:
        weighting = {name: value for name, value in params.items() if is_weighting(name)}
        return {"the model": classifier(params), "the weighting network": weighting}

    def outer_of(self, name: str) -> Mapping[str, Any]:
        if not is_weighting(name):
            return {}
        own = {"lr": self.weighting_lr, "weight_decay": self.weighting_decay}
        return own | {"optimizer": "adam", "schedule": "constant"}

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        now = compute("weighted_gradient").sums()
        total = now.pop(TOTAL)
        rates = {name: outer.lr(name) for name in now}
        ahead = {name: outer.params[name] - rates[name] * value / total for name, value in now.items()}
        clean = compute("clean_gradient", given=ahead).means()
        along = {name: rates[name] * value for name, value in clean.items()}
        slope = sum((now[name] * value).sum() for name, value in along.items()) / total
        given = along | {TOTAL: total, SLOPE: slope if self.normalize else torch.zeros_like(total)}
        outer.update(compute("slopes", given=given).sums())
        then = compute("weighted_gradient").sums()
        total = then.pop(TOTAL)
        return {OUTER_GRAD_NORM: outer.update({name: value / total for name, value in then.items()})}

    def weighted_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """Σ V(f_i) ∇f_i over the support by parameter of the classifier, and what it is to be divided by."""

        def weighted(own: Params) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            losses = losses_of(problem, learned, own, episode.support, phase)
            weights = self.weights(problem, learned, losses.detach())
            return (weights * losses).sum(), (weights, losses)

        gradient, (_, (weights, losses)) = gradient_and_value(weighted, classifier(learned.params), has_aux=True)
        total = weights.sum() if self.normalize else torch.ones_like(weights).sum()
        return Part(gradient | {TOTAL: total.detach()}, {"train/support_loss": losses.mean().detach()})

    def clean_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """Gradient of the query loss at the classifier that is given."""
        return gradient_on_queries(problem, learned, learned.given, episode, phase)

    def slopes(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """Gradient in Θ of −⟨G(Θ), d⟩ for the direction d that is given, with the total and the mean slope of G."""
        own = classifier(learned.params)
        direction = {name: learned.given[name] for name in own}
        slopes = slopes_along(problem, learned, own, direction, episode.support, phase)
        losses = losses_of(problem, learned, own, episode.support, phase).detach()
        factors = (slopes - learned.given[SLOPE]).detach() / learned.given[TOTAL]

        def agreement(weighting: Params) -> Tensor:
            return -(self.weights(problem, learned._replace(params=learned.params | weighting), losses) * factors).sum()

        weighting = {name: value for name, value in learned.params.items() if is_weighting(name)}
        return Part(gradient_and_value(agreement, weighting)[0])

    def weigh(self, problem: Problem, learned: Learned, episode: Episode, *, phase: Phase) -> tuple[Tensor, Tensor]:
        losses = losses_of(problem, learned, classifier(learned.params), episode.support, phase).detach()
        return losses, self.weights(problem, learned, losses)

    def weights(self, problem: Problem, learned: Learned, losses: Tensor) -> Tensor:
        """V_Θ of losses [n]."""
        weights: Tensor = problem.beside(WEIGHTING, learned, losses[:, None])
        return weights[:, 0]


def weighting_network(hidden: int) -> nn.Module:
    """Losses [n, 1] to weights [n, 1] in (0, 1)."""
    layers = {"linear": nn.Linear(1, hidden), "relu": nn.ReLU(), "score": nn.Linear(hidden, 1)}
    return nn.Sequential(OrderedDict(layers | {"sigmoid": nn.Sigmoid()}))


def is_weighting(name: str) -> bool:
    """Whether a learned parameter is one of the weighting network."""
    return name.startswith(f"{WEIGHTING}.")


def classifier(params: Params) -> Params:
    """The parameters of the classifier alone."""
    return {name: value for name, value in params.items() if not is_weighting(name)}
