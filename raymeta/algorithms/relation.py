"""Relation networks: a learned comparison of queries with classes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.embedding import embed, one_hot
from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Examples, Noise
from raymeta.tasks.inputs import Inputs

RELATION = "relation"
"""Name of the network beside the model."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RelationNet(Algorithm):
    """Sung, Yang, Zhang, Xiang, Torr, Hospedales. Learning to Compare: Relation Network for Few-Shot Learning.
    CVPR 2018.

    r_n(x) = g([Σ_k f(x_nk), f(x)]) in (0, 1): the relation module g reads the sum over the support features of class n
    and the features of a query. The outer loop learns f and g by the mean of (r_n(x) − 1[y = n])² over all pairs; a
    query belongs to the class of the largest r. There is no inner loop, and the training way may differ from the test
    way. Support and query pass f as one batch. A loss that a person gives takes the place of the squares.

    Differences from the paper:
    1. f ends with a feature vector, and g is a perceptron with one hidden layer on two of them; the paper's g has two
       convolutional blocks with batch norm, on feature maps side by side.
    2. The gradient of f and g is clipped as one (`outer.clip_norm` 0.5); the authors' code clips each.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    outer: ClassVar[dict[str, Any]] = {
        "optimizer": "adam", "lr": 1e-3, "schedule": "step", "step_every": 100_000, "clip_norm": 0.5
    }  # fmt: skip

    hidden: PositiveInt = 64
    """size of the relation module's hidden layer"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        return None

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = super().network(spec, tasks)
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        return Beside(body, **{RELATION: relation_module(features, self.hidden)})

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        def predict(x: Inputs) -> Tensor:
            z_SD, z_QD = (z.flatten(1) for z in embed(problem, learned, support.x, x, phase))
            class_WD = one_hot(support.y, phase.way, z_SD.dtype).T @ z_SD
            scores_QW: Tensor = problem.beside(RELATION, learned, pairs(class_WD, z_QD)).squeeze(-1)
            return scores_QW

        return Adaptation([predict], loss=relation_loss if problem.own_loss is None else None)


def relation_module(features: int, hidden: int) -> nn.Module:
    """Two feature vectors [..., 2D] to their relation [..., 1]."""
    layers = {"linear": nn.Linear(2 * features, hidden), "relu": nn.ReLU(), "score": nn.Linear(hidden, 1)}
    return nn.Sequential(OrderedDict(layers | {"sigmoid": nn.Sigmoid()}))


def pairs(class_WD: Tensor, z_QD: Tensor) -> Tensor:
    """Every query with every class [Q, W, 2D], the class first."""
    way, (num_queries, _) = len(class_WD), z_QD.shape
    return torch.cat([class_WD.expand(num_queries, -1, -1), z_QD[:, None].expand(-1, way, -1)], dim=-1)


def relation_loss(relations_QW: Tensor, y: Tensor) -> Tensor:
    """Mean squared error to 1 for the own class and 0 for the others."""
    return (relations_QW - one_hot(y, relations_QW.shape[1], relations_QW.dtype)).square().mean()
