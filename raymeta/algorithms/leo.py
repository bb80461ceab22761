"""LEO: a classifier is decoded from a low-dimensional code of its classes, and the code adapts.

Shape suffixes: S support, W way, D features, L latents.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.adaptation.descent import descend, steps_in
from raymeta.adaptation.embedding import one_hot
from raymeta.adaptation.outcome import Adaptation, Predictor, once
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.layers.inner_step import current_inner_step
from raymeta.models.shapes import require_outputs, type_of
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tree import Params

ENCODER, RELATION, DECODER = "encoder", "relation", "decoder"
"""Names of the networks beside the model."""
LATENT_RATES, WEIGHT_RATES = "inner_lr/latents", "inner_lr/weights"
DROPOUT, LATENTS, WEIGHTS = "dropout", "latents", "weights"
"""Names of what a training task draws: a mask [S, D], and normal numbers [W, L] and [K + 1, W, D]."""
SMALLEST = 1e-10


class Normal(NamedTuple):
    """Means and standard deviations, of independent numbers."""

    mean: Tensor
    std: Tensor

    def sample(self, draw: Tensor | None) -> Tensor:
        """The mean where nothing is drawn."""
        return self.mean if draw is None else self.mean + self.std * draw


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LEO(Algorithm):
    """Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero, Hadsell. Meta-Learning with Latent Embedding Optimization.
    ICLR 2019, arXiv:1807.05960.

    Features f(x) [D] come from the model, which the paper pre-trains and holds fixed (`--start RUN --freeze 'body.*'`).
    Codes of the support are compared in pairs by a relation network; their mean over a class n and all partners is a
    normal distribution of its latents z_n, from which a linear decoder makes one of its weights w_n. Inner:
    `latent_steps` steps z ← z − η ⊙ ∇_z L_S(w(z)), where w is decoded anew each time, then `weight_steps` steps
    w ← w − ξ ⊙ ∇_w L_S(w). Outer: L_Q(w) + β KL(q(z|S) ‖ N(0, I)) + γ mean (sg(z') − z)² + λ₁ Σ θ² + λ₂ R, where z' are
    the adapted latents, θ the networks' weights and R is the mean squared deviation of the correlations of the
    decoder's rows from the identity. It learns the networks, η and ξ through all steps and samples, whose noise comes
    from the task's key. At test means take the place of samples, and dropout is off.

    Deviations are max(e^s − 1 + o, 1e-10) with o = 0 for latents and √(2 / (D + W)) for weights, as in the authors'
    code. The defaults are its settings for mini-ImageNet with one shot.

    Differences from the paper's code:
    1. The KL divergence is the exact one in place of that of the sample, both as means over latents.
    2. Inner losses are means over the support, where the code's gradients are sums.
    3. A gradient that is not finite ends the run, where the code replaces it by that of the L2 penalty.
    4. Nothing is pre-trained by itself: without --start and --freeze the body is learned with the rest.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 2.739e-4, "clip_value": 0.1, "clip_norm": 0.1}

    num_latents: PositiveInt = 64
    """latents of a class"""
    latent_steps: NonNegativeInt = 5
    """inner steps of the latents"""
    weight_steps: NonNegativeInt = 5
    """inner steps of the decoded weights after them"""
    init_latent_lr: NonNegativeFloat = 1.0
    """where the learned rate η of each latent begins"""
    init_weight_lr: NonNegativeFloat = 0.001
    """where the learned rate ξ of each feature's weight begins"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.308
    """share of the support's features that the encoder does not see in training"""
    kl_weight: NonNegativeFloat = 0.756
    """weight β of the divergence from a standard normal distribution"""
    encoder_weight: NonNegativeFloat = 5.757e-6
    """weight γ of the distance from the first latents to the adapted ones"""
    l2_weight: NonNegativeFloat = 3.623e-10
    """weight λ₁ of the squared weights of encoder, relation network and decoder"""
    orthogonality_weight: NonNegativeFloat = 0.188
    """weight λ₂ of the correlations of the decoder's rows"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        return None

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = super().network(spec, tasks)
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        return Beside(body, **networks(features, self.num_latents))

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        like, width = problem.model.get_parameter(f"{DECODER}.weight"), _width(problem)
        rates = {
            LATENT_RATES: torch.full((self.num_latents,), self.init_latent_lr, dtype=like.dtype, device=like.device),
            WEIGHT_RATES: torch.full((width,), self.init_weight_lr, dtype=like.dtype, device=like.device),
        }
        return super().init(problem, params | rates, generator)

    def outer_of(self, name: str) -> Mapping[str, Any]:
        return {"weight_decay": 0.0} if name in (LATENT_RATES, WEIGHT_RATES) else {}

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        if not phase.training:
            return {}
        num_support, way, width = episodes.support.y.shape[1], problem.way_of(episodes), _width(problem)
        generators = [key.generator("noise") for key in keys]
        kept = [rng.random((num_support, width)) >= self.dropout for rng in generators]
        shapes = {LATENTS: (way, self.num_latents), WEIGHTS: (self.latent_steps + 1, way, width)}
        drawn = {DROPOUT: np.stack(kept) / (1 - self.dropout)}
        drawn |= {name: np.stack([rng.standard_normal(shape) for rng in generators]) for name, shape in shapes.items()}
        return {name: torch.from_numpy(value).to(type_of(problem.model)) for name, value in drawn.items()}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        z_SD = problem.forward(learned, support.x, phase).flatten(1)

        def loss(w_WD: Tensor) -> Tensor:
            return problem.loss(z_SD @ w_WD.T, support.y)

        def decoded(z_WL: Tensor, k: int) -> Tensor:
            draw = noise[WEIGHTS][k] if WEIGHTS in noise else None
            return weights_of(problem.beside(DECODER, learned, z_WL)).sample(draw)

        code, rates = self._code(problem, learned, z_SD, support.y, noise, phase.way), learned.params
        num_steps = steps_in(phase, self.latent_steps + self.weight_steps, None)
        num_latent = min(num_steps, self.latent_steps)
        latents, first = descended(
            lambda z: loss(decoded(z, current_inner_step())),
            code.sample(noise.get(LATENTS)),
            rates[LATENT_RATES],
            num_latent,
        )
        heads = [decoded(z, k) for k, z in enumerate(latents)]
        tuned, after_latents = descended(loss, heads[-1], rates[WEIGHT_RATES], num_steps - num_latent)
        embed = once(lambda x: problem.forward(learned, x, phase, support_x=support.x).flatten(1))
        predictors = [_predictor(embed, w_WD) for w_WD in [*heads, *tuned[1:]]]
        penalty = self._penalty(learned.params, code, latents) if phase.training else None
        return Adaptation(predictors, after_latents if first is None else first, penalty=penalty)

    def _code(self, problem: Problem, learned: Learned, z_SD: Tensor, y: Tensor, noise: Noise, way: int) -> Normal:
        """The distribution of each class's latents."""
        seen_SD = z_SD * noise[DROPOUT] if DROPOUT in noise else z_SD
        codes_SL = problem.beside(ENCODER, learned, seen_SD)
        shape = (len(codes_SL), *codes_SL.shape)
        pairs = torch.cat([codes_SL[:, None].expand(shape), codes_SL[None].expand(shape)], -1)
        related_S = problem.beside(RELATION, learned, pairs).mean(1)
        members_WS = one_hot(y, way, z_SD.dtype).T
        mean, spread = (members_WS @ related_S / members_WS.sum(1, keepdim=True)).chunk(2, 1)
        return Normal(mean, deviation(spread, 0.0))

    def _penalty(self, params: Params, code: Normal, latents: Sequence[Tensor]) -> Tensor:
        own = [p for name, p in params.items() if name.startswith((f"{ENCODER}.", f"{RELATION}.", f"{DECODER}."))]
        squares = torch.stack([p.square().sum() for p in own]).sum()
        distance = (latents[-1].detach() - latents[0]).square().mean()
        rows = correlation_penalty(params[f"{DECODER}.weight"].T)
        penalty = self.kl_weight * divergence(code) + self.encoder_weight * distance
        return penalty + self.l2_weight * squares + self.orthogonality_weight * rows


def descended(
    loss: Callable[[Tensor], Tensor], start: Tensor, rates: Tensor, num_steps: int
) -> tuple[list[Tensor], Tensor | None]:
    """`start` and what each step makes of it, and the loss before the first."""
    trajectory = descend(lambda v: loss(v[""]), {"": start}, lambda step: {"": rates}, num_steps=num_steps)
    return [values[""] for values in trajectory.params], trajectory.first_loss


def networks(features: int, latents: int) -> dict[str, nn.Module]:
    """Encoder [D] to [L], relation network [2L] to [2L], decoder [L] to [2D]: all without biases."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, 4):
        layers[f"linear{i}"] = nn.Linear(2 * latents, 2 * latents, bias=False)
        layers[f"relu{i}"] = nn.ReLU()
    del layers["relu3"]
    encoder, decoder = nn.Linear(features, latents, bias=False), nn.Linear(latents, 2 * features, bias=False)
    return {ENCODER: encoder, RELATION: nn.Sequential(layers), DECODER: decoder}


def weights_of(decoded: Tensor) -> Normal:
    """The distribution of weights [W, D] from the decoder's outputs [W, 2D]."""
    mean_WD, spread_WD = decoded.chunk(2, 1)
    return Normal(mean_WD, deviation(spread_WD, math.sqrt(2 / sum(mean_WD.shape))))


def deviation(spread: Tensor, offset: float) -> Tensor:
    """max(e^s − 1 + offset, 1e-10)."""
    return (spread.exp() - (1 - offset)).clamp(min=SMALLEST)


def divergence(code: Normal) -> Tensor:
    """The mean over numbers of KL(N(mean, std²) ‖ N(0, 1))."""
    return ((code.mean.square() + code.std.square() - 1) / 2 - code.std.log()).mean()


def correlation_penalty(rows: Tensor) -> Tensor:
    """The mean squared deviation of the rows' cosines from the identity."""
    directions = F.normalize(rows, dim=1)
    cosines = directions @ directions.T
    return (cosines - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).square().mean()


def _width(problem: Problem) -> int:
    """Features D."""
    return len(problem.model.get_parameter(f"{DECODER}.weight")) // 2


def _predictor(embed: Predictor, w_WD: Tensor) -> Predictor:
    return lambda x: embed(x) @ w_WD.T
