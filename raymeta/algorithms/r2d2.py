"""R2-D2: ridge regression on learned features as the learner of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from raymeta.adaptation.embedding import embed, one_hot
from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Examples, Noise
from raymeta.tasks.inputs import Inputs
from raymeta.tree import Params

LOG_RIDGE, LOG_SCALE, SHIFT = "ridge/log_lambda", "ridge/log_scale", "ridge/shift"
"""Names of the learned scalars among the parameters: λ and α are the exponentials of theirs, so they stay positive."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class R2D2(Algorithm):
    """Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form solvers. ICLR 2019.

    With features Z [S, D] of the support and one-hot labels Y, W = Zᵀ(ZZᵀ + λI)⁻¹Y, the ridge regression by the
    Woodbury identity: a system of S equations whatever D is. Logits of a query: α zW + β. The outer loop learns the
    network, log λ, log α and β by the cross-entropy of these logits, through the solution of the system. There is no
    inner loop, and the training way may differ from the test way.

    As in the authors' code a feature of ones stands for the bias, and features and labels are divided by √S, so λ
    means the same for any number of shots.

    Differences from it:
    1. λ and α are positive, as exponentials of what is learned.
    2. β is the same for all classes, so cross-entropy does not see it, and its gradient there is rounding, which Adam
       would blow up: β is stepped by plain SGD. A loss of one's own may see it.
    3. The system is solved in float64, whatever the network computes in.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 5e-3, "schedule": "step", "step_every": 2000}

    init_ridge: PositiveFloat = 50.0
    """regularisation λ at the start"""
    init_scale: PositiveFloat = 10.0
    """factor α on the predictions at the start (the authors: 10, on mini-ImageNet 1e-4)"""
    init_shift: float = 0.0
    """what is added to the predictions at the start, β"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        return None

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        like = next(iter(params.values()))
        starts = {LOG_RIDGE: math.log(self.init_ridge), LOG_SCALE: math.log(self.init_scale), SHIFT: self.init_shift}
        scalars = {name: like.new_full((1,), value) for name, value in starts.items()}
        return super().init(problem, params | scalars, generator)

    def outer_of(self, name: str) -> Mapping[str, Any]:
        if name == SHIFT:
            return {"weight_decay": 0.0, "optimizer": "sgd"}
        return {"weight_decay": 0.0} if name in (LOG_RIDGE, LOG_SCALE) else {}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        ridge, scale = (learned.params[name].exp() for name in (LOG_RIDGE, LOG_SCALE))

        def predict(x: Inputs) -> Tensor:
            z_SD, z_QD = (with_ones(z.flatten(1)) for z in embed(problem, learned, support.x, x, phase))
            weights_DW = self.solve(z_SD, one_hot(support.y, phase.way, z_SD.dtype), ridge)
            return scale * (z_QD @ weights_DW) + learned.params[SHIFT]

        return Adaptation([predict])

    def solve(self, z_SD: Tensor, y_SW: Tensor, ridge: Tensor) -> Tensor:
        """Weights [D, W] of the learner of a task with features z [S, D] and one-hot labels y [S, W]."""
        return ridge_regression(z_SD, y_SW, ridge)


def with_ones(z: Tensor) -> Tensor:
    """Features [n, d] with one that is always 1, [n, d + 1]."""
    return F.pad(z, (0, 1), value=1.0)


def ridge_regression(z_SD: Tensor, y_SW: Tensor, ridge: Tensor) -> Tensor:
    """Weights [D, W] that minimise ‖ZW − Y‖²/S + λ‖W‖², from a system of S equations."""
    num_support = len(z_SD)
    z, y = z_SD.double(), y_SW.double() / num_support
    gram_SS = z @ z.T / num_support + ridge.double() * torch.eye(num_support, dtype=z.dtype, device=z.device)
    dual_SW: Tensor = torch.linalg.solve(gram_SS, y)
    return (z.T @ dual_SW).to(z_SD.dtype)
