"""MetaOptNet: a support vector machine on learned features as the learner of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.embedding import embed, one_hot
from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Examples, Noise
from raymeta.tasks.inputs import Inputs
from raymeta.tree import Params

LOG_SCALE = "svm/log_scale"
"""Name of the learned scalar among the parameters: the factor on the logits is its exponential."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetaOptNet(Algorithm):
    """Lee, Maji, Ravichandran, Soatto. Meta-Learning with Differentiable Convex Optimization. CVPR 2019.

    The learner of a task is the multi-class machine of Crammer and Singer (JMLR 2001) on features of the support. Its
    dual, with K the products of features and Y one-hot labels: minimise tr(AᵀKA)/2 − tr(AᵀY) over A [S, W] whose rows
    sum to 0 with A ≤ C·Y. Logits of a query: scale · Σ_i A_i ⟨z_i, z⟩. The outer loop learns network and scale through
    the solution. There is no inner loop, and the training way may differ from the test way.

    Differences from the paper:
    1. The dual is solved by `qp_steps` of accelerated projected gradient (Beck and Teboulle 2009) on the simplex of
       each example, and derivatives pass these steps; the paper takes up to 15 steps of an interior-point method and
       differentiates the optimality conditions.
    2. The program is solved in float64, whatever the network computes in.
    3. The outer optimiser is Adam; the paper's is SGD with Nesterov momentum, 60,000 steps long.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3, "schedule": "step", "step_every": 2000}

    cost: PositiveFloat = 0.1
    """C, the weight of the hinge losses"""
    qp_steps: PositiveInt = 30
    """steps of the solver"""
    init_scale: PositiveFloat = 1.0
    """factor on the logits at the start"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        return None

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        like = next(iter(params.values()))
        return super().init(problem, params | {LOG_SCALE: like.new_full((1,), math.log(self.init_scale))}, generator)

    def outer_of(self, name: str) -> Mapping[str, Any]:
        return {"weight_decay": 0.0} if name == LOG_SCALE else {}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        def predict(x: Inputs) -> Tensor:
            z_SD, z_QD = (z.flatten(1) for z in embed(problem, learned, support.x, x, phase))
            dual_SW = crammer_singer(z_SD, one_hot(support.y, phase.way, z_SD.dtype), self.cost, self.qp_steps)
            return learned.params[LOG_SCALE].exp() * (z_QD @ (z_SD.T @ dual_SW))

        return Adaptation([predict])


def crammer_singer(z_SD: Tensor, y_SW: Tensor, cost: float, steps: int) -> Tensor:
    """The dual variables A [S, W] after so many steps. With A = C·Y − B, each row of B lies in a simplex of size C."""
    z, y = z_SD.double(), y_SW.double()
    gram_SS = z @ z.T
    rate = 1 / (gram_SS.square().sum().sqrt() + 1e-12)  # the Frobenius norm is at least the largest eigenvalue
    beta = cost * torch.ones_like(y) / y.shape[1]
    ahead, momentum = beta, 1.0
    for _ in range(steps):
        slope = y - gram_SS @ (cost * y - ahead)
        following = onto_simplex(ahead - rate * slope, cost)
        next_momentum = (1 + math.sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = following + (momentum - 1) / next_momentum * (following - beta)
        beta, momentum = following, next_momentum
    return (cost * y - beta).to(z_SD.dtype)


def onto_simplex(v: Tensor, total: float) -> Tensor:
    """The nearest point of each row [..., W] with entries from 0 that sum to `total` (Held, Wolfe, Crowder 1974)."""
    ordered = v.sort(-1, descending=True).values
    counts = torch.arange(1, v.shape[-1] + 1, dtype=v.dtype, device=v.device)
    levels = (ordered.cumsum(-1) - total) / counts
    level = levels.masked_fill(ordered <= levels, -torch.inf).amax(-1, keepdim=True)
    return (v - level).clamp_min(0)
