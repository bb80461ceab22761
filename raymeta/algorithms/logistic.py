"""Logistic regression by Newton's method on learned features as the learner of a task."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.algorithms.r2d2 import R2D2
from raymeta.options import STRICT

LEAST_SLOPE = 1e-6
"""Smallest slope of a sigmoid that is divided by."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Logistic(R2D2):
    """Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form solvers. ICLR 2019: LR-D2.

    As R2-D2, with regularised logistic regression in place of ridge regression: one against the others for each class,
    by `newton_steps` of Newton's method as iteratively reweighted least squares. From w = 0,
    μ = sigmoid(Zw), s = μ(1 − μ), r = Zw + (y − μ)/s, w ← Zᵀ(ZZᵀ + λ diag(s)⁻¹)⁻¹ r:
    a system of S equations whatever the number of features is. Derivatives pass all steps. λ, α and β are learned.

    Differences from the paper: (1) more than two classes are one against the others, where the paper's LR-D2 is for
    two; (2) logits are those of the classes, scaled by α.
    """

    newton_steps: PositiveInt = 5
    """Newton steps for each class"""
    init_ridge: PositiveFloat = 1.0
    """regularisation λ at the start"""
    init_scale: PositiveFloat = 1.0
    """factor α on the log odds at the start"""

    def solve(self, z_SD: Tensor, y_SW: Tensor, ridge: Tensor) -> Tensor:
        return logistic_regression(z_SD, y_SW, ridge, self.newton_steps)


def logistic_regression(z_SD: Tensor, y_SW: Tensor, ridge: Tensor, steps: int) -> Tensor:
    """Weights [D, W] after so many Newton steps on Σ log(1 + exp(−±zw)) + λ‖w‖²/2 of each class."""
    z, y_WS = z_SD.double(), y_SW.double().T
    gram_SS = z @ z.T
    scores_WS = torch.zeros_like(y_WS)
    dual_WS = torch.zeros_like(y_WS)
    for _ in range(steps):
        share = scores_WS.sigmoid()
        slope = (share * (1 - share)).clamp_min(LEAST_SLOPE)
        target = scores_WS + (y_WS - share) / slope
        systems = gram_SS + torch.diag_embed(ridge.double() / slope)
        dual_WS = torch.linalg.solve(systems, target[..., None])[..., 0]
        scores_WS = dual_WS @ gram_SS
    return (dual_WS @ z).T.to(z_SD.dtype)
