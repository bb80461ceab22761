"""Matching networks: attention over the support set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.adaptation.embedding import embed, one_hot
from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.layers.lstm_cell import LSTMCell
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import Inputs

FORWARD, BACKWARD, READING = "support_forward", "support_backward", "reading"
"""Names of the LSTMs of full-context embeddings, beside the model."""
TINY = 1e-8
"""Added to probabilities before their logarithm, as in the authors' loss."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MatchingNet(Algorithm):
    """Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra. Matching Networks for One Shot Learning. NIPS 2016.

    p(y | x) = Σ_i a(x, x_i) y_i over the support, a = softmax_i(scale · cos(f(x), g(x_i))). The outputs are log p, so
    the cross-entropy of queries is the paper's loss. The outer loop learns the network through the attention; there is
    no inner loop, and the training way may differ from the test way.

    With `full_context`, f and g see the whole support set: g(x_i) = g'(x_i) + the outputs of an LSTM that runs forward
    and of one that runs backward over the support set, in an order drawn for each task; f(x) comes of
    `processing_steps` of an LSTM that reads the support set by attention softmax_i(f · g(x_i)) and adds f'(x) after
    each.

    Differences from the paper:
    1. `scale` is 10: cosines between −1 and 1 leave the softmax nearly flat, with which training is slow and ends
       several points lower (Oreshkin et al., NeurIPS 2018). 1 is the paper's.
    2. There is no fine-tuning at test.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3, "schedule": "step", "step_every": 2000}

    scale: PositiveFloat = 10.0
    """factor on the cosines before the softmax (the paper: 1)"""
    full_context: bool = False
    """embed each example in the context of the support set, by LSTMs"""
    processing_steps: PositiveInt = 5
    """reading steps of the LSTM that embeds a query, with full_context"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        return None

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = super().network(spec, tasks)
        if not self.full_context:
            return body
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        cells = {name: LSTMCell(features, features) for name in (FORWARD, BACKWARD)}
        return Beside(body, **cells, **{READING: LSTMCell(2 * features, features)})

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        """With full context, the order in which the support set is read [T, S]."""
        if not self.full_context:
            return {}
        count = episodes.support.y.shape[1]
        orders = [key.generator("noise").permutation(count) for key in keys]
        return {"order": torch.from_numpy(np.stack(orders))}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        def predict(x: Inputs) -> Tensor:
            z_SD, z_QD = (z.flatten(1) for z in embed(problem, learned, support.x, x, phase))
            labels_SW = one_hot(support.y, phase.way, z_SD.dtype)
            if self.full_context:
                z_SD, labels_SW = z_SD[noise["order"]], labels_SW[noise["order"]]
                z_SD = _support_in_context(problem, learned, z_SD)
                z_QD = _queries_in_context(problem, learned, z_QD, z_SD, self.processing_steps)
            return (attention(z_QD, z_SD, self.scale) @ labels_SW + TINY).log()

        return Adaptation([predict])


def attention(z_QD: Tensor, z_SD: Tensor, scale: float) -> Tensor:
    """softmax_i(scale · cos(z, z_i)) [Q, S]; rows sum to 1."""
    return (scale * F.normalize(z_QD, dim=-1) @ F.normalize(z_SD, dim=-1).T).softmax(-1)


def _support_in_context(problem: Problem, learned: Learned, z_SD: Tensor) -> Tensor:
    outputs = [z_SD]
    for name, order in ((FORWARD, range(len(z_SD))), (BACKWARD, reversed(range(len(z_SD))))):
        h, c = torch.zeros_like(z_SD[:1]), torch.zeros_like(z_SD[:1])
        found: dict[int, Tensor] = {}
        for place in order:
            h, c = problem.beside(name, learned, z_SD[place : place + 1], h, c)
            found[place] = h
        outputs.append(torch.cat([found[place] for place in range(len(z_SD))]))
    return torch.stack(outputs).sum(0)


def _queries_in_context(problem: Problem, learned: Learned, z_QD: Tensor, g_SD: Tensor, steps: int) -> Tensor:
    h, c, read = z_QD, torch.zeros_like(z_QD), torch.zeros_like(z_QD)
    for _ in range(steps):
        read = (h @ g_SD.T).softmax(-1) @ g_SD
        h, c = problem.beside(READING, learned, torch.cat([z_QD, read], 1), h, c)
        h = h + z_QD
    return h
