"""Prototypical networks."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from raymeta.adaptation.embedding import embed, means_of_classes
from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Examples, Noise
from raymeta.tasks.inputs import Inputs


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProtoNet(Algorithm):
    """Snell, Swersky, Zemel. Prototypical Networks for Few-shot Learning. NIPS 2017.

    c_n = mean of f(x) over the support of class n; logits −‖f(x) − c_n‖² (squared, no root). No inner loop, so the
    training way may differ from the test way. As in the authors' code, support and query pass the network as one
    batch. Under the policy `transductive`, the default, batch norm normalises by that batch at test, too, where the
    authors' networks are in eval mode, with running statistics: that is `batch_norm: running`.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3, "schedule": "step", "step_every": 2000}

    distance: Literal["euclidean", "cosine"] = "euclidean"
    """between features and class means: squared Euclidean (the paper's), or one minus the cosine"""
    temperature: PositiveFloat = 1.0
    """what the distances are divided by before the softmax"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        return None

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        def predict(x: Inputs) -> Tensor:
            z_SD, z_QD = embed(problem, learned, support.x, x, phase)
            return self._logits(z_QD, means_of_classes(z_SD.flatten(1), support.y, phase.way))

        return Adaptation([predict])

    def _logits(self, z_QD: Tensor, c_WD: Tensor) -> Tensor:
        if self.distance == "cosine":
            logits = F.normalize(z_QD.flatten(1), dim=-1) @ F.normalize(c_WD, dim=-1).T - 1
        else:
            logits = -squared_distances(z_QD, c_WD)
        return logits if self.temperature == 1 else logits / self.temperature


def squared_distances(z_QD: Tensor, c_WD: Tensor) -> Tensor:
    """‖z − c‖² [Q, W]."""
    return (z_QD.flatten(1)[:, None, :] - c_WD[None, :, :]).square().sum(-1)
