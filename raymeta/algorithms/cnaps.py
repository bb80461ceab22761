"""CNAPs: a set encoder writes FiLM parameters and a head for each task, on a body that is given.

Shape suffixes: S support examples, Q queries, W way, D features, E size of a task's vector, C channels under FiLM.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.embedding import embed, means_of_classes
from raymeta.adaptation.film import film_layers, modulated
from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import BODY, Beside
from raymeta.models.layers.set_encoder import mean_of_set, perceptron
from raymeta.models.reader import reader_of
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Examples, Noise
from raymeta.tasks.inputs import Inputs, only

READER, ADAPTER, HEADS = "reader", "adapter", "heads"
"""Names of the networks beside the model."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CNAPs(Algorithm):
    """Requeima, Gordon, Bronskill, Nowozin, Turner. Fast and Flexible Multi-Task Classification using Conditional
    Neural Adaptive Processes. NeurIPS 2019.

    z = mean over the support of a reader's features. A perceptron turns z into γ and β for all channels of the norms of
    the body f_θ (of its layers, where it has no norm). Features f_θ,γ,β of the support give a head: with c_n the mean
    of class n, w_n = c_n + MLP(c_n) and b_n = MLP(c_n); logits of a query are f_θ,γ,β(x) wᵀ + b. The outer loop learns
    reader and perceptrons by the cross-entropy of the queries, while θ is frozen: pre-train it, and give it by
    `--start`. There is no inner loop, and the training way may differ from the test way.

    Differences from the paper:
    1. γ = 1 + r ⊙ MLP and β = r ⊙ MLP with learned r near `init_size`, as in the authors' code, where r is drawn.
    2. There is no auto-regressive adaptation of one layer by features of those below it.
    3. Images are read by a convolutional network without norm, of 32 features.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    at_once: ClassVar[bool] = True
    reads_inputs: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3}

    freeze_body: bool = True
    """keep the parameters of the body as they were given; False learns them with the rest"""
    hidden: PositiveInt = 64
    """size of the hidden layers of the perceptrons"""
    init_size: PositiveFloat = 0.001
    """factor on what is added to γ = 1 and β = 0 at the start"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        return None

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = super().network(spec, tasks)
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        reader, read = reader_of(tasks.input_shape)
        if self.freeze_body:
            body.requires_grad_(False)
        channels = sum(film_layers(body).values())
        return Beside(body, **{READER: reader}, **self.networks(features, read, channels))

    def networks(self, features: int, read: int, channels: int) -> dict[str, nn.Module]:
        """What writes FiLM parameters and heads, for so many features, features of the reader, and channels."""
        return {
            ADAPTER: Adapter(read, self.hidden, channels, self.init_size),
            HEADS: Heads(features, self.hidden),
        }

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        adapted = self.adapted(problem, learned, support)

        def predict(x: Inputs) -> Tensor:
            z_SD, z_QD = (z.flatten(1) for z in embed(problem, adapted, support.x, x, phase))
            means_WD = means_of_classes(z_SD, support.y, phase.way)
            weight_WD, bias_W = problem.beside(HEADS, learned, means_WD)
            logits_QW: Tensor = z_QD @ weight_WD.T + bias_W
            return logits_QW

        return Adaptation([predict])

    def adapted(self, problem: Problem, learned: Learned, support: Examples) -> Learned:
        """What is learned, with the body's parameters modulated for a task."""
        z_E = mean_of_set(problem.beside(READER, learned, only(support.x)))
        gamma_C, beta_C = problem.beside(ADAPTER, learned, z_E)
        layers = film_layers(problem.model.get_submodule("body"), BODY)
        given = problem.fixed_tensors() | learned.params
        return learned._replace(params=learned.params | modulated(given, layers, gamma_C, beta_C))


class Adapter(nn.Module):
    """A task's vector [E] to γ [C] and β [C]."""

    def __init__(self, read: int, hidden: int, channels: int, init_size: float) -> None:
        super().__init__()
        self.both = perceptron(read, hidden, 2 * channels)
        self.size = nn.Parameter(torch.full((2 * channels,), init_size))

    def forward(self, z_E: Tensor) -> tuple[Tensor, Tensor]:
        gamma_C, beta_C = (self.size * self.both(z_E)).chunk(2)
        return 1 + gamma_C, beta_C


class Heads(nn.Module):
    """Means of classes [W, D] to weights [W, D] and biases [W] of a linear head."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.weights, self.biases = perceptron(features, hidden, features), perceptron(features, hidden, 1)

    def forward(self, means_WD: Tensor) -> tuple[Tensor, Tensor]:
        return means_WD + self.weights(means_WD), self.biases(means_WD)[:, 0]
