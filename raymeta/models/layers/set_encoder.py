"""Sets as vectors: each example by itself through a perceptron, then the mean, whatever the order and the number.

Shape suffixes: S examples, F features, D size of a code.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear layers between these sizes, with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mean_of_set(codes_SD: Tensor) -> Tensor:
    """The mean [D]; zeros where there are no examples."""
    return codes_SD.sum(0) / max(len(codes_SD), 1)


class SetEncoder(nn.Module):
    """Examples [S, F] to the mean [D] of their codes."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.each = perceptron(*sizes)

    def forward(self, examples_SF: Tensor) -> Tensor:
        return mean_of_set(self.each(examples_SF))


def beside_all(first: Tensor, same: Tensor) -> Tensor:
    """Rows [n, F] each followed by the same vector [D]: [n, F + D]."""
    return torch.cat([first, same.expand(len(first), -1)], 1)
