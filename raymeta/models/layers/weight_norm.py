"""Weight norm from primitives: the double backward of torch's fused kernel is wrong over dimension 0, its default.

torch's `_weight_norm(v, g, dim)` fails `gradgradcheck` for dim 0, so second-order meta-gradients through it are several
per cent off. w = v · g / ‖v‖ written out is exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm as WeightNormHook


class WeightNorm(nn.Module):
    """In place of the parametrization that `torch.nn.utils.parametrizations.weight_norm` registers.

    `dim` is the one dimension that keeps norms of its own; -1 for one norm of everything, as torch has it.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return normalised(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return torch.norm_except_dim(weight, 2, self.dim), weight


class ExactWeightNormHook(WeightNormHook):
    """In place of the hook that the older `torch.nn.utils.weight_norm` registers."""

    def compute_weight(self, module: nn.Module) -> Any:
        return normalised(getattr(module, f"{self.name}_v"), getattr(module, f"{self.name}_g"), self.dim)


def normalised(v: Tensor, g: Tensor, dim: int) -> Tensor:
    """v · g / ‖v‖, with the norm over all dimensions but `dim`, or over all where that is -1."""
    others = None if dim == -1 else [d for d in range(v.dim()) if d != dim % v.dim()]
    norm: Tensor = torch.linalg.vector_norm(v, dim=others, keepdim=others is not None)
    return v * (g / norm)
