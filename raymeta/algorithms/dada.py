"""DADA: how training images are changed is learned."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.picture_operations import OPERATIONS, operated
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.adaptation.relax import OneOf, Surrogate, Switches, estimate
from raymeta.adaptation.through_step import inner_product, slopes
from raymeta.adaptation.weighted import losses_of
from raymeta.algorithms.base import Compute, Outer
from raymeta.algorithms.look_ahead import LookAhead, model_of
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.shapes import require_one
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import only
from raymeta.trackers.names import OPERATION_USES
from raymeta.tree import Params

SURROGATE = "surrogate"
"""Name of the network beside the model that predicts what choices are worth."""
WEIGHTS, CHANCES, MAGNITUDES = "policy/weights", "policy/chances", "policy/magnitudes"
"""Logits of each sub-policy [P], and of how likely and how strong its two operations are [P, 2]."""
PAIRS = tuple(combinations(range(len(OPERATIONS)), 2))
"""The operations of each sub-policy."""
ONE_OF, SWITCHES = OneOf(), Switches()
SHOWN = 5
"""Sub-policies that are told of a policy that was found."""
TINY = 1e-6
"""How far uniform numbers stay from 0 and 1."""


class Draws(NamedTuple):
    """Uniform numbers of the images of a task."""

    pair: Tensor  # [n, P]
    pair_again: Tensor  # [n, P]
    on: Tensor  # [n, 2]
    on_again: Tensor  # [n, 2]
    sign: Tensor  # [n, 2]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DADA(LookAhead):
    """Li, Hu, Wang, Hospedales, Robertson, Yang. DADA: Differentiable Automatic Data Augmentation. ECCV 2020,
    arXiv:2003.03780.

    A policy has a sub-policy for each pair of operations: a weight, and for each operation a probability and a
    magnitude. Each training image (support) gets a sub-policy s by the weights, of which each operation is switched on
    by its probability, b, and changes the image by its magnitude m. With f the loss of such images, a step is:
    1. w' = w − λ ∇f(w);
    2. d = λ ∇L(w'), L the loss on the query sets, whose images are as they are;
    3. what the choices of image i add to L(w') is R_i = −⟨∇_w f_i(w), d⟩ / n. Weights and probabilities are stepped
       along the RELAX estimate of ∇ E R_i, and magnitudes along ∂R_i/∂m;
    4. w is stepped along ∇f with the new policy, on the same batch, by the same draws.
    The surrogate c of RELAX is a small network of the relaxed choices (`temperature`), times |d| / n; it is stepped
    along the derivative of the square of the estimate.

    Differences from the paper:
    1. The model is trained while the policy is searched, and it is what is scored: there is no second training.
    2. Each image has choices of its own, whose worth is that of the look-ahead to first order in them, so that an image
       is not judged by the choices of all others.
    3. Eight operations which have derivatives, so that magnitudes need no straight-through estimate; the direction of
       moving, and of more or less brightness and contrast, is drawn. No cutout.
    4. Where b depends on s, RELAX is applied to s with the value of a sampled b, and to b given s.
    """

    one_by_one: ClassVar[bool] = True
    outer: ClassVar[Mapping[str, Any]] = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 2e-4}

    policy: Literal["learned", "uniform", "random"] = "learned"
    """learned from the uniform one; or one that stays: all sub-policies, switches and magnitudes in the middle, or
    drawn by the run's seed"""
    policy_lr: PositiveFloat = 5e-3
    """learning rate of the policy"""
    surrogate_lr: PositiveFloat = 5e-3
    """learning rate of the surrogate"""
    temperature: PositiveFloat = 0.5
    """temperature of the relaxed choices that the surrogate sees"""
    hidden: PositiveInt = 32
    """units of the hidden layer of the surrogate"""

    @property
    def looks_ahead(self) -> bool:
        return self.policy == "learned"

    def is_meta(self, name: str) -> bool:
        return name.startswith(("policy/", f"{SURROGATE}."))

    def outer_of(self, name: str) -> Mapping[str, Any]:
        if not self.is_meta(name):
            return {}
        lr = self.policy_lr if name.startswith("policy/") else self.surrogate_lr
        return {"optimizer": "adam", "lr": lr, "weight_decay": 0.0, "schedule": "constant"}

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        shape = require_one("dada", tasks.input_shape)
        if len(shape) != 3:
            raise ConfigError(
                f"dada changes images [channels, height, width], and this task set gives {list(shape)}: use --tasks "
                "classification"
            )
        return Beside(super().network(spec, tasks), **{SURROGATE: surrogate(len(PAIRS) + 2, self.hidden)})

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        learned = super().init(problem, params, generator)
        like = next(iter(params.values()))
        shapes = {WEIGHTS: (len(PAIRS),), CHANCES: (len(PAIRS), 2), MAGNITUDES: (len(PAIRS), 2)}
        policy = {name: like.new_zeros(shape) for name, shape in shapes.items()}
        if self.policy == "random":
            policy = {name: torch.rand(v.shape, generator=generator).to(like).logit(TINY) for name, v in policy.items()}
        return learned._replace(params=learned.params | policy)

    def found(self, problem: Problem, learned: Learned) -> Mapping[str, Any]:
        """The sub-policies of the largest weights, one after another."""
        if self.policy != "learned":
            return {}
        shares = learned.params[WEIGHTS].softmax(0)
        chances, magnitudes = (learned.params[name].sigmoid() for name in (CHANCES, MAGNITUDES))
        lines = []
        for pair in shares.argsort(descending=True, stable=True)[:SHOWN].tolist():
            two = zip(PAIRS[pair], chances[pair].tolist(), magnitudes[pair].tolist(), strict=True)
            named = [f"{OPERATIONS[one]} {chance:.2f} x {magnitude:.2f}" for one, chance, magnitude in two]
            lines.append(f"{100 * shares[pair]:.1f} %: {' + '.join(named)}")
        return {"policy": ", ".join(lines)}

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        metrics = super().step(outer, compute, phase)
        if self.policy != "learned":
            return metrics
        return metrics | dict(zip(OPERATION_USES, uses(outer.params).tolist(), strict=True))

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        if not phase.training:
            return {}
        n = episodes.support.y.shape[1]
        u = np.stack([key.generator("noise").random((n, 2 * len(PAIRS) + 6)) for key in keys])
        return {"u": torch.from_numpy(u.clip(TINY, 1 - TINY).astype(np.float32))}

    def training_loss(
        self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase
    ) -> Tensor:
        x = changed(only(support.x), learned.params, draws_of(noise))
        return problem.loss(problem.predict(learned, x, phase), support.y)

    def meta_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        support, draws = episode.support, draws_of(noise)

        def weighted(own: Params, others: Params) -> Tensor:
            x = changed(only(support.x), learned.params | others, draws)
            return (others["u"] * losses_of(problem, learned, own, support._replace(x=x), phase)).mean()

        magnitudes = learned.params[MAGNITUDES]
        others = {MAGNITUDES: magnitudes, "u": magnitudes.new_ones(len(support.y))}
        found = slopes(weighted, model_of(learned.params), others, learned.given)
        scale = inner_product(learned.given, learned.given).sqrt() / len(support.y)
        return Part({MAGNITUDES: -found[MAGNITUDES], **self.of_choices(problem, learned, draws, -found["u"], scale)})

    def of_choices(self, problem: Problem, learned: Learned, draws: Draws, worth_n: Tensor, scale: Tensor) -> Params:
        """Estimates for weights, chances and the surrogate, where choices are worth R_i and the surrogate a scale."""
        own = {name: value for name, value in learned.params.items() if name.startswith(f"{SURROGATE}.")}
        unit = torch.where(scale > 0, scale, 1)  # choices are worth nothing where d is 0

        def square(own: Params) -> tuple[Tensor, Params]:
            there = learned._replace(params=learned.params | own)

            def predicted(inputs: Tensor) -> Tensor:
                outputs: Tensor = problem.beside(SURROGATE, there, inputs)
                return scale * outputs[:, 0]

            estimates = self.estimates(predicted, learned.params, draws, worth_n)
            error = torch.stack([(value / unit).square().sum(1).mean() for value in estimates.values()]).sum()
            return error, estimates

        gradient, (_, estimates) = gradient_and_value(square, own, has_aux=True)
        pair = chosen_pair(learned.params, draws)
        on_policy = {WEIGHTS: estimates[WEIGHTS].sum(0), CHANCES: pair.T @ estimates[CHANCES]}
        return gradient | {name: value.detach() for name, value in on_policy.items()}

    def estimates(self, predicted: Surrogate, params: Params, draws: Draws, worth_n: Tensor) -> Params:
        """Of each image, in the logits of all sub-policies [n, P] and of the switches of the one it has [n, 2]."""
        weights, pair = weights_of(params, draws), chosen_pair(params, draws)
        nothing = weights.new_zeros(len(weights), 2)

        def of_pair(z: Tensor) -> Tensor:
            return predicted(torch.cat([ONE_OF.softened(z, self.temperature), nothing], 1))

        def of_switches(z: Tensor) -> Tensor:
            return predicted(torch.cat([pair, SWITCHES.softened(z, self.temperature)], 1))

        chances = pair @ params[CHANCES]
        return {
            WEIGHTS: estimate(ONE_OF, weights, draws.pair, draws.pair_again, worth_n, of_pair),
            CHANCES: estimate(SWITCHES, chances, draws.on, draws.on_again, worth_n, of_switches),
        }


def changed(x_nchw: Tensor, params: Params, draws: Draws) -> Tensor:
    """Training images as the policy changes them, by what was drawn for each."""
    pair = chosen_pair(params, draws)
    on = SWITCHES.chosen(SWITCHES.relaxed(pair @ params[CHANCES], draws.on))
    strength = pair @ params[MAGNITUDES].sigmoid() * torch.where(draws.sign < 0.5, -1.0, 1.0)
    for place in range(2):
        which = pair @ operations_at(place).to(pair)
        then = operated(x_nchw, which, strength[:, place])
        x_nchw = torch.where(on[:, place].view(-1, 1, 1, 1) > 0, then, x_nchw)
    return x_nchw


def weights_of(params: Params, draws: Draws) -> Tensor:
    """Logits of the sub-policies for each image [n, P]."""
    return params[WEIGHTS].expand(len(draws.pair), -1)


def chosen_pair(params: Params, draws: Draws) -> Tensor:
    """The sub-policy of each image [n, P], 1 for one of them."""
    return ONE_OF.chosen(ONE_OF.relaxed(weights_of(params, draws), draws.pair))


def uses(params: Params) -> Tensor:
    """How likely a training image is changed by each operation [K]."""
    weights, chances = params[WEIGHTS].softmax(0), params[CHANCES].sigmoid()
    first, second = (weights * chances[:, place] @ operations_at(place).to(weights) for place in (0, 1))
    return first + second


def operations_at(place: int) -> Tensor:
    """Which operation each sub-policy has at the first or the second place [P, K]."""
    return torch.eye(len(OPERATIONS))[[pair[place] for pair in PAIRS]]


def draws_of(noise: Noise) -> Draws:
    """The uniform numbers of a task [n, 2 P + 6] by what they are for."""
    return Draws(*torch.split(noise["u"], [len(PAIRS), len(PAIRS), 2, 2, 2], dim=1))


def surrogate(inputs: int, hidden: int) -> nn.Module:
    """Choices [n, inputs] to a value of each [n, 1], which is 0 at first."""
    score = nn.Linear(hidden, 1)
    nn.init.zeros_(score.weight)
    nn.init.zeros_(score.bias)
    return nn.Sequential(OrderedDict(linear=nn.Linear(inputs, hidden), tanh=nn.Tanh(), score=score))
