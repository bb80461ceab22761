"""Meta-Curvature: inner gradients are multiplied by learned matrices, one for each of their dimensions.

Shape suffixes: O outputs, I inputs, F the positions of a filter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.descent import Descent, LossReduction, fixed_rate_descent
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import DescentAlgorithm
from raymeta.options import STRICT
from raymeta.tasks.episodes import Examples
from raymeta.tree import Params

CURVATURE = "curvature/"
"""Prefix of the learned matrices among the parameters; the outer optimiser never decays them."""
MODES = ("out", "in", "filter")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetaCurvature(DescentAlgorithm):
    """Park, Oliva. Meta-Curvature. NeurIPS 2019, arXiv:1902.03356.

    θ_{k+1} = θ_k − α MC(∇L_S(θ_k)), θ_0 = φ. The gradient G [O, I, F] of each weight is multiplied along each of its
    modes: MC(G)_{oif} = Σ M_o[o, o'] M_i[i, i'] M_f[f, f'] G_{o'i'f'}, so that vec MC(G) = (M_o ⊗ M_i ⊗ M_f) vec G: a
    matrix of the size of the layer's curvature, in the memory of three small ones. They begin as identities, which is
    MAML. The outer loop learns (φ, M_o, M_i, M_f) through ∇L_Q(θ_K), second order.

    Differences from the paper:
    1. Every parameter has its matrices: weights of linear layers M_o and M_i, biases and the gains and shifts of norms
       M_o alone.
    2. α stands in front of the identities and is not learned by itself, as the matrices hold its scale.
    """

    inner_lr: NonNegativeFloat = 0.1
    """inner learning rate α"""
    inner_steps: NonNegativeInt = 5
    """inner steps K in training"""
    test_inner_steps: NonNegativeInt | None = None
    """inner steps at validation and test; the same as `inner_steps` unless given"""
    first_order: bool = False
    """drop the derivatives of the inner gradients; the matrices are then not learned"""
    inner_loss_reduction: LossReduction = "mean"
    """`mean` cross-entropy, or `sum_over_classes`: `way` times that"""

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        matrices = {
            f"{CURVATURE}{name}/{mode}": torch.eye(size, dtype=value.dtype, device=value.device)
            for name, value in params.items()
            for mode, size in zip(MODES, sizes_of(value), strict=False)
        }
        learned = super().init(problem, params, generator)
        return learned._replace(params=params | matrices)

    def outer_of(self, name: str) -> Mapping[str, Any]:
        return {"weight_decay": 0.0} if name.startswith(CURVATURE) else {}

    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        plain = fixed_rate_descent(self, problem, learned, support, phase)
        return plain._replace(precondition=curved)


def sizes_of(value: Tensor) -> tuple[int, ...]:
    """Sizes of a parameter's modes: outputs, inputs and filter, or the first of them where it has fewer dimensions."""
    if value.dim() < 3:
        return tuple(value.shape) or (1,)
    return (*value.shape[:2], math.prod(value.shape[2:]))


def curved(values: Params, gradient: Params) -> Params:
    """MC of a gradient, with the matrices in `values`."""
    return {name: _multiplied(values, name, g) for name, g in gradient.items()}


def _multiplied(values: Params, name: str, gradient: Tensor) -> Tensor:
    g = gradient.reshape(sizes_of(gradient))
    for place, mode in enumerate(MODES[: g.dim()]):
        g = torch.tensordot(values[f"{CURVATURE}{name}/{mode}"], g, dims=([1], [place])).movedim(0, place)
    return g.reshape(gradient.shape)
