"""Batch norm that differs from inner step to inner step, as in MAML++."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymeta.models.layers.inner_step import current_inner_step
from raymeta.models.layers.norm import BatchNorm, name_norms


class StepNorm(nn.Module):
    """`norm` with running statistics, or gain and shift [K, C], of their own for each of `num_steps` inner steps.

    Which step is at hand is decided around the call, see `inner_step`. What is not of each step is there once.
    """

    def __init__(self, norm: BatchNorm, num_steps: int, *, statistics: bool, affine: bool) -> None:
        super().__init__()
        running = norm.running_mean is not None
        self.statistics = nn.ModuleList(
            BatchNorm(norm.num_features, eps=norm.eps, affine=False, running=running, momentum=norm.momentum)
            for _ in range(num_steps if statistics else 1)
        )
        rows = num_steps if affine else 1
        assert norm.weight is not None
        assert norm.bias is not None
        self.weight = nn.Parameter(norm.weight.detach().repeat(rows, 1))
        self.bias = nn.Parameter(norm.bias.detach().repeat(rows, 1))

    def forward(self, x: Tensor) -> Tensor:
        step = current_inner_step()
        z: Tensor = self.statistics[_slot(step, len(self.statistics))](x)
        shape = (-1, *[1] * (x.dim() - 2))
        weight, bias = (value[_slot(step, len(value))].view(shape) for value in (self.weight, self.bias))
        return torch.addcmul(bias, z, weight).to(z.dtype)


def _slot(step: int, count: int) -> int:
    return 0 if count == 1 else step


def with_step_norms(model: nn.Module, num_steps: int, *, statistics: bool, affine: bool) -> nn.Module:
    """`model` with every batch norm that has gain and shift made a `StepNorm`; those of fixed statistics stay."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, BatchNorm)]
    for name, norm in found:
        if norm.frozen or norm.weight is None or norm.bias is None:
            continue
        parent, _, child = name.rpartition(".")
        of_steps = StepNorm(norm, num_steps, statistics=statistics, affine=affine)
        if not name:
            return of_steps
        setattr(model.get_submodule(parent), child, of_steps)
    name_norms(model)
    return model
