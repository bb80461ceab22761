"""Siamese networks: pairs of images, the same class or not."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.adaptation.embedding import embed, one_hot
from raymeta.adaptation.outcome import Adaptation, training_metrics
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import Inputs

COMPARISON = "comparison"
"""Name of the weights of |f(x) − f(x')|, beside the model."""
TINY = 1e-12
"""Added to a squared distance before its root, whose slope at 0 is infinite."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Siamese(Algorithm):
    """Koch, Zemel, Salakhutdinov. Siamese Neural Networks for One-shot Image Recognition. ICML workshop 2015.

    One network f embeds both images of a pair. `pair_loss` says what it learns:
    - `koch`: p = sigmoid(Σ_j a_j |f_j(x) − f_j(x')| + b) is the probability of one class, by binary cross-entropy; a
      and b are learned.
    - `contrastive` (Hadsell, Chopra, LeCun, CVPR 2006): D² for a pair of one class, max(0, margin − D)² for one of two,
      with D = ‖f(x) − f(x')‖.
    - `triplet` (Schroff, Kalenichenko, Philbin, CVPR 2015): max(0, margin + D²(x, positive) − D²(x, negative)) of
      normalised features.
    A query belongs to the class of its most alike support example: the largest log odds of `koch`, the smallest D of
    the others. The outer loop learns from pairs alone; there is no inner loop.

    Differences from the papers:
    1. Pairs are those of each query with each support example of an episode; pairs of one class and of two have the
       same weight in all, whatever their number. Triplets are all of a query with a support example of its own class
       and one of another.
    2. The network is whichever is configured, and the optimiser Adam with one rate for all layers.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3, "schedule": "step", "step_every": 2000}

    pair_loss: Literal["koch", "contrastive", "triplet"] = "koch"
    """what is learned from pairs: koch (weighted L1, cross-entropy), contrastive, or triplet"""
    margin: PositiveFloat = 1.0
    """distance from which on a pair of two classes is far enough apart (contrastive), or by which it should be farther
    than a pair of one (triplet)"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        return None

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = super().network(spec, tasks)
        if self.pair_loss != "koch":
            return body
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        return Beside(body, **{COMPARISON: nn.Linear(features, 1)})

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        def predict(x: Inputs) -> Tensor:
            alike_QS = self._alike(problem, learned, *embed(problem, learned, support.x, x, phase))
            return most_alike(alike_QS, support.y, phase.way)

        return Adaptation([predict])

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        support, query = episode
        alike_QS = self._alike(problem, learned, *embed(problem, learned, support.x, query.x, phase))
        same_QS = query.y[:, None] == support.y
        loss = self.loss(alike_QS, same_QS)
        outputs = most_alike(alike_QS, support.y, phase.way)
        return loss, training_metrics(problem, loss, outputs, query.y, None)

    def _alike(self, problem: Problem, learned: Learned, z_SD: Tensor, z_QD: Tensor) -> Tensor:
        """How alike each query is to each support example [Q, S]: log odds, or minus the distance."""
        z_SD, z_QD = z_SD.flatten(1), z_QD.flatten(1)
        if self.pair_loss == "koch":
            odds: Tensor = problem.beside(COMPARISON, learned, (z_QD[:, None] - z_SD).abs()).squeeze(-1)
            return odds
        if self.pair_loss == "triplet":
            z_SD, z_QD = F.normalize(z_SD, dim=-1), F.normalize(z_QD, dim=-1)
        squares = (z_QD[:, None] - z_SD).square().sum(-1)
        return -squares if self.pair_loss == "triplet" else -(squares + TINY).sqrt()

    def loss(self, alike_QS: Tensor, same_QS: Tensor) -> Tensor:
        """The loss of all pairs, or triplets, of an episode."""
        if self.pair_loss == "koch":
            return balanced(F.softplus(torch.where(same_QS, -alike_QS, alike_QS)), same_QS)
        if self.pair_loss == "contrastive":
            apart = (self.margin + alike_QS).clamp_min(0).square()
            return balanced(torch.where(same_QS, alike_QS.square(), apart), same_QS)
        return triplet_loss(-alike_QS, same_QS, self.margin)


def most_alike(alike_QS: Tensor, y_S: Tensor, way: int) -> Tensor:
    """For each class the value of its most alike support example [Q, W]."""
    other_SW = one_hot(y_S, way, torch.bool).logical_not()
    return alike_QS[:, :, None].masked_fill(other_SW, -torch.inf).amax(1)


def balanced(losses_QS: Tensor, same_QS: Tensor) -> Tensor:
    """The mean over pairs of one class and the mean over pairs of two, averaged."""
    same = same_QS.to(losses_QS.dtype)
    return ((losses_QS * same).sum() / same.sum() + (losses_QS * (1 - same)).sum() / (1 - same).sum()) / 2


def triplet_loss(distances_QS: Tensor, same_QS: Tensor, margin: float) -> Tensor:
    """Mean of max(0, margin + d(x, positive) − d(x, negative)) over all triplets."""
    far_QSS = (margin + distances_QS[:, :, None] - distances_QS[:, None, :]).clamp_min(0)
    chosen = (same_QS[:, :, None] & ~same_QS[:, None, :]).to(far_QSS.dtype)
    return (far_QSS * chosen).sum() / chosen.sum()
