"""NP: a set of examples becomes a distribution over one vector, of which each sample is a function.

Shape suffixes: N examples of any kind, Q queries, F features, D size of a code, Z of the latent vector, L its samples,
d dimensions of a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.embedding import embed
from raymeta.adaptation.likelihoods import Normals, divergence, of_all
from raymeta.adaptation.outcome import Adaptation, training_metrics
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.layers.set_encoder import SetEncoder, beside_all, perceptron
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import Inputs, only
from raymeta.trackers.scores import ScoreName
from raymeta.tree import Params

ENCODER, LATENT, DECODER = "encoder", "latent", "decoder"
"""Names of the networks beside the model."""
Latent = tuple[Tensor, Tensor]
"""Means and standard deviations [Z] of a normal distribution."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NP(Algorithm):
    """Garnelo, Schwarz, Rosenbaum, Viola, Rezende, Eslami, Teh. Neural Processes. arXiv:1807.01622.

    r = mean of h(f(x), y) over a set of examples gives q(z | set) = N(μ(r), σ(r)²) with σ = 0.1 + 0.9 sigmoid, and
    p(y | x, z) = N(g(f(x), z)), whose deviation is at least 0.1. In training z is sampled from q(z | support, query),
    and the outer loop minimises, over support and query as targets, the mean of −log p(y | x, z) plus
    KL(q(z | support, query) ‖ q(z | support)) divided by their number: the negative evidence lower bound of a target.
    Gradients go through the sample. At test z is sampled from q(z | support), and a prediction is the mixture over
    samples; its score is the negative log-likelihood of a query under it. Samples come from the key of the task.

    Difference from the paper: f, the model, stands before h and g; with `model: {name: mlp, hidden: []}` it is x.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("regression",)
    score: ClassVar[ScoreName | None] = "nll"
    at_once: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-4}

    hidden: PositiveInt = 128
    """size of the hidden layers and of r"""
    latent: PositiveInt = 128
    """size of z"""
    encoder_layers: PositiveInt = 4
    """linear layers of h"""
    decoder_layers: PositiveInt = 3
    """linear layers of g"""
    samples: PositiveInt = 1
    """samples of z of a training task"""
    test_samples: PositiveInt = 32
    """samples of z at validation and test"""
    least_std: float = Field(default=0.1, gt=0, lt=1)
    """least standard deviation of a prediction given z"""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = spec.build(tasks.input_shape, None)
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        return Beside(body, **self.networks(features, tasks.num_outputs))

    def networks(self, features: int, outputs: int) -> dict[str, nn.Module]:
        """h, the network from r to z, and g for so many features and dimensions of a target."""
        inner = [self.hidden] * (self.decoder_layers - 1)
        return {
            ENCODER: SetEncoder(features + outputs, *[self.hidden] * self.encoder_layers),
            LATENT: perceptron(self.hidden, self.hidden, 2 * self.latent),
            DECODER: perceptron(features + self.latent, *inner, 2 * outputs),
        }

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        if problem.own_loss is not None:
            raise ConfigError("np learns the likelihood of its normal distributions: leave loss out")
        return super().init(problem, params, generator)

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        """Standard normal numbers [T, L, Z]."""
        shape = self.samples if phase.training else self.test_samples, self.latent
        drawn = np.stack([key.generator("noise").standard_normal(shape) for key in keys])
        return {"latent": torch.from_numpy(drawn).to(only(episodes.support.x).dtype)}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        def predict(x: Inputs) -> Tensor:
            z_SF, z_QF = (z.flatten(1) for z in embed(problem, learned, support.x, x, phase))
            known = self.latent_of(problem, learned, z_SF, support.y)
            return self.decoded(problem, learned, z_QF, known, noise["latent"])

        normals = Normals(self.least_std)
        return Adaptation([predict], loss=normals.nll, point=normals.point, deviation=normals.deviation)

    def latent_of(self, problem: Problem, learned: Learned, z_NF: Tensor, y_Nd: Tensor) -> Latent:
        """q(z | examples)."""
        r_D = problem.beside(ENCODER, learned, torch.cat([z_NF, y_Nd], 1))
        mean_Z, spread_Z = problem.beside(LATENT, learned, r_D).chunk(2)
        return mean_Z, 0.1 + 0.9 * spread_Z.sigmoid()

    def decoded(self, problem: Problem, learned: Learned, z_QF: Tensor, latent: Latent, normal_LZ: Tensor) -> Tensor:
        """Outputs [Q, 2d, L] for samples of the latent vector."""
        mean_Z, std_Z = latent
        samples = [mean_Z + std_Z * normal_Z for normal_Z in normal_LZ]
        return torch.stack([problem.beside(DECODER, learned, beside_all(z_QF, sample)) for sample in samples], -1)

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        support, targets = episode.support, of_all(episode)
        z_NF = problem.forward(learned, targets.x, phase).flatten(1)
        known = self.latent_of(problem, learned, z_NF[: len(support.y)], support.y)
        whole = self.latent_of(problem, learned, z_NF, targets.y)
        outputs = self.decoded(problem, learned, z_NF, whole, noise["latent"])
        nll = torch.stack([Normals(self.least_std).nll(one, targets.y) for one in outputs.unbind(-1)]).mean()
        loss = nll + divergence(whole, known) / len(targets.y)
        return loss, training_metrics(problem, loss, outputs, targets.y, None)
