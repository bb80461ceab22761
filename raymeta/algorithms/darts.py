"""DARTS: an architecture is learned by gradients, beside the weights that all architectures share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.adaptation.weighted import gradient_on_queries
from raymeta.algorithms.base import Compute, Outer
from raymeta.algorithms.shared_weights import SharedWeightsSearch, architecture, is_architecture
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Noise
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.tree import Params

BETAS = [0.5, 0.999]
"""Of Adam for the architecture."""
EPSILON = "|epsilon"
"""Length of the difference in units of v; no parameter's name holds a bar."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DARTS(SharedWeightsSearch):
    """Liu, Simonyan, Yang. DARTS: Differentiable Architecture Search. ICLR 2019, arXiv:1806.09055.

    α are the architecture parameters, w the weights of a network in which all operations of all edges are mixed. A step
    is:
    1. α ← α − Adam(∇_α L_val(w', α)) on the query sets, where w' = w − ξ (∇_w L_train(w, α) + λ w + μ m) is where the
       outer optimiser would go, ξ being its rate of the moment, λ its decay, μ m what momentum brings;
    2. w ← w − ξ ∇_w L_train(w, α) on the support sets with the new α, by the outer optimiser.
    By the chain rule the gradient in 1. is ∇_α L_val(w', α) − ξ ∇²_{α,w} L_train(w, α) v, at v = ∇_{w'} L_val(w', α):
    momentum and decay do not depend on α. The product is differentiated exactly (`order: second`), or is
    (∇_α L_train(w⁺, α) − ∇_α L_train(w⁻, α)) / 2ε at w± = w ± ε v, ε = 0.01 / ‖v‖ (`order: finite_differences`, the
    paper's). `order: first` leaves it out, and w' is w. Sums run over the examples of all tasks of the step.

    What is found is told in `summary.json` of the run: the two strongest edges into each node, other than `none`, of
    the parameters that are tested. What is tested is the search network itself; `--model derived --model.genotype
    FOLDER` trains what was found.

    Differences from the paper:
    1. The exact product is the default.
    2. `outer.clip_norm` bounds the gradients of α, too, by themselves; it does not change w'.
    3. With another outer optimiser than SGD, w' is where that would go with a gradient of zero, less ξ ∇_w L_train.
    4. Batch norm has no running statistics here: every pass uses those of its batch.
    """

    outer: ClassVar[dict[str, Any]] = {
        "optimizer": "sgd", "lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "schedule": "cosine",
        "final_lr": 0.001, "clip_norm": 5.0,
    }  # fmt: skip

    order: Literal["first", "second", "finite_differences"] = "second"
    """how the look-ahead of the weights is differentiated: not at all, exactly, or by the paper's differences"""
    architecture_lr: PositiveFloat = 3e-4
    """learning rate of the architecture parameters"""
    architecture_decay: NonNegativeFloat = 1e-3
    """weight decay of the architecture parameters"""

    def outer_of(self, name: str) -> Mapping[str, Any]:
        if not is_architecture(name):
            return {}
        own = {"lr": self.architecture_lr, "weight_decay": self.architecture_decay, "schedule": "constant"}
        return own | {"rule": "torch.optim:Adam", "arguments": {"betas": BETAS}, "momentum": 0.0}

    def learned_parts(self, params: Params) -> Mapping[str, Params]:
        return {"the weights": weights(params)}

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        if self.order == "first":
            outer.update(compute("architecture_gradient").means())
        else:
            outer.update(self._through_look_ahead(outer, compute))
        return {OUTER_GRAD_NORM: outer.update(compute("weights_gradient").means())}

    def _through_look_ahead(self, outer: Outer, compute: Compute) -> Params:
        """The gradient of α after the look-ahead of w."""
        slope = compute("weights_gradient").means()
        rates = {name: outer.lr(name) for name in slope}
        drifted = outer.preview({name: torch.zeros_like(value) for name, value in slope.items()})
        ahead = {name: drifted[name] - rates[name] * value for name, value in slope.items()}
        clean = compute("gradient_ahead", given=ahead).means()
        along = {name: rates[name] * clean.pop(name) for name in slope}
        mixed = self._mixed(along, compute)
        return {name: value - mixed[name] for name, value in clean.items()}

    def _mixed(self, along: Params, compute: Compute) -> Params:
        """∇²_{α,w} L_train · v for the direction v."""
        if self.order == "second":
            return compute("mixed_derivative", given=along).means()
        length = math.sqrt(sum(float(value.square().sum()) for value in along.values()))
        epsilon = 0.01 / max(length, 1e-12)
        given = {name: epsilon * value for name, value in along.items()}
        return compute("difference", given=given | {EPSILON: torch.tensor(epsilon, dtype=torch.float64)}).means()

    def weights_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """∇_w L_train."""
        return self.gradient_on_support(problem, learned, weights(learned.params), episode, phase)

    def architecture_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """∇_α L_val at the weights that there are."""
        part = gradient_on_queries(problem, learned, architecture(learned.params), episode, phase)
        return part._replace(metrics=part.metrics | self.shares(problem, learned.params))

    def gradient_ahead(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """∇ L_val in α and in w at the weights that are given."""
        there = architecture(learned.params) | learned.given
        part = gradient_on_queries(problem, learned, there, episode, phase)
        return part._replace(metrics=part.metrics | self.shares(problem, learned.params))

    def mixed_derivative(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """∇_α ⟨∇_w L_train, v⟩ for the direction v that is given."""
        own = weights(learned.params)

        def agreement(alpha: Params) -> Tensor:
            there = learned._replace(params=learned.params | alpha)
            slope, _ = gradient_and_value(lambda own: self.support_loss(problem, there, own, episode, phase), own)
            return torch.stack([(value * learned.given[name]).sum() for name, value in slope.items()]).sum()

        return Part(gradient_and_value(agreement, architecture(learned.params))[0])

    def difference(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """The same by the difference of ∇_α L_train at w ± what is given."""
        alpha, own = architecture(learned.params), weights(learned.params)
        above, below = (
            self.gradient_on_support(
                problem,
                learned._replace(params=learned.params | {n: w + sign * learned.given[n] for n, w in own.items()}),
                alpha,
                episode,
                phase,
            ).sums
            for sign in (1, -1)
        )
        return Part({name: (above[name] - below[name]) / (2 * learned.given[EPSILON]) for name in alpha})


def weights(params: Mapping[str, Tensor]) -> Params:
    """The weights w alone."""
    return {name: value for name, value in params.items() if not is_architecture(name)}
