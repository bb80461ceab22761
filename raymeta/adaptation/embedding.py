"""What methods share that compare queries with a support set: features of both, and labels as products."""

from __future__ import annotations

import torch
from torch import Tensor

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.tasks.inputs import Inputs, joined, num_examples


def embed(problem: Problem, learned: Learned, support_x: Inputs, x: Inputs, phase: Phase) -> tuple[Tensor, Tensor]:
    """Outputs of the model for support [S, ...] and queries [Q, ...], which pass it as one batch.

    Under the policy `support` they pass it apart, and the support's statistics normalise both.
    """
    if problem.batch_norm == "support":
        z_S = problem.forward(learned, support_x, phase)
        return z_S, problem.forward(learned, x, phase, support_x=support_x)
    z_S, z_Q = problem.forward(learned, joined(support_x, x), phase).tensor_split([num_examples(support_x)])
    return z_S, z_Q


def one_hot(y: Tensor, way: int, dtype: torch.dtype) -> Tensor:
    """Labels [n] as rows [n, W] of zeros and a one; torch's own `one_hot` fails under vmap."""
    return (y[:, None] == torch.arange(way, device=y.device)).to(dtype)


def means_of_classes(codes_SD: Tensor, y_S: Tensor, way: int) -> Tensor:
    """The mean of each class [W, D], as a product (no indexing: vmap); zeros for a class without examples."""
    members_SW = one_hot(y_S, way, codes_SD.dtype)
    return (members_SW / members_SW.sum(0).clamp(min=1)).T @ codes_SD
