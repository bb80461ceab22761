"""CNP: a set of examples becomes one vector, which a second network reads beside each query.

Shape suffixes: S support examples, Q queries, W way, F features, D size of a code, d dimensions of a target.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.embedding import embed, means_of_classes
from raymeta.adaptation.likelihoods import Normals, of_all
from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.layers.set_encoder import beside_all, mean_of_set, perceptron
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import Inputs
from raymeta.trackers.scores import ScoreName
from raymeta.tree import Params

ENCODER, DECODER = "encoder", "decoder"
"""Names of the networks beside the model."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CNP(Algorithm):
    """Garnelo, Rosenbaum, Maddison, Ramalho, Saxton, Shanahan, Teh, Rezende, Eslami. Conditional Neural Processes.
    ICML 2018.

    r = mean over the support of h(f(x), y), and (μ, s) = g(f(x*), r) for a query, with σ = 0.1 + 0.9 softplus(s). The
    outer loop learns f, the model, h and g by the mean of −log N(y; μ, σ²) over support and query, which both are
    targets in training; scores are of the queries alone. In classification r holds the mean of h(f(x)) of each class,
    one after another, and g gives logits. Without support r is zero. There is no inner loop: adapting is one pass.

    Differences from the paper:
    1. f stands before h and g; with `model: {name: mlp, hidden: []}` it is x itself, as in the paper's regression.
    2. In classification the queries alone are targets.
    """

    at_once: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-4}

    hidden: PositiveInt = 128
    """size of the hidden layers and of r"""
    encoder_layers: PositiveInt = 4
    """linear layers of h"""
    decoder_layers: PositiveInt = 3
    """linear layers of g"""
    least_std: float = Field(default=0.1, gt=0, lt=1)
    """least standard deviation of a prediction, 0.1 in the formula above"""

    def score_of(self, goal: Goal) -> ScoreName:
        return "nll" if goal == "regression" else super().score_of(goal)

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = spec.build(tasks.input_shape, None)
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        return Beside(body, **self.networks(features, self.num_outputs(tasks) or 0, tasks.goal))

    def networks(self, features: int, outputs: int, goal: Goal) -> dict[str, nn.Module]:
        """h and g for so many features, and classes or dimensions of a target."""
        inner = [self.hidden] * (self.decoder_layers - 1)
        if goal == "classification":
            encoder = perceptron(features, *[self.hidden] * self.encoder_layers)
            return {ENCODER: encoder, DECODER: perceptron(features + outputs * self.hidden, *inner, outputs)}
        encoder = perceptron(features + outputs, *[self.hidden] * self.encoder_layers)
        return {ENCODER: encoder, DECODER: perceptron(features + self.hidden, *inner, 2 * outputs)}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        if problem.goal == "regression" and problem.own_loss is not None:
            raise ConfigError("cnp learns the likelihood of its normal distributions: leave loss out")
        return super().init(problem, params, generator)

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        def predict(x: Inputs) -> Tensor:
            z_SF, z_QF = (z.flatten(1) for z in embed(problem, learned, support.x, x, phase))
            r_D = self.representation(problem, learned, z_SF, support.y)
            return problem.of_way(problem.beside(DECODER, learned, beside_all(z_QF, r_D)), phase)

        if problem.goal == "classification":
            return Adaptation([predict])
        normals = Normals(self.least_std)
        return Adaptation([predict], loss=normals.nll, point=normals.point, deviation=normals.deviation)

    def representation(self, problem: Problem, learned: Learned, z_SF: Tensor, y: Tensor) -> Tensor:
        """r [D], or of each class one after another [W D]."""
        if problem.goal == "regression":
            return mean_of_set(problem.beside(ENCODER, learned, torch.cat([z_SF, y], 1)))
        last = cast(nn.Linear, cast(nn.Sequential, problem.model.get_submodule(DECODER))[-1])
        return means_of_classes(problem.beside(ENCODER, learned, z_SF), y, last.out_features).flatten()

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if problem.goal == "regression":
            episode = Episode(episode.support, of_all(episode))
        return super().task_loss(problem, learned, episode, noise=noise, phase=phase)
