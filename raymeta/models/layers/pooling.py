"""Pooling that a compiler can fuse with its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.autodiff.graphs import is_traced


class MaxPool2x2(nn.Module):
    """Maximum over squares of 2 x 2 pixels of x [n, C, H, W]; an odd last row or column is dropped.

    Compiled, it is written as comparisons, since the compiler turns the gradient of torch's own pooling into a search
    over all windows for each pixel. Values are equal to the bit, and the first of equal pixels gets the gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        return max_pool(x)


def max_pool(x: Tensor) -> Tensor:
    """`MaxPool2x2` as a function."""
    if not is_traced():
        return F.max_pool2d(x, 2)
    height, width = x.shape[-2] // 2, x.shape[-1] // 2
    x = x[..., : 2 * height, : 2 * width]
    first, second = _larger(x[..., ::2, ::2], x[..., ::2, 1::2]), _larger(x[..., 1::2, ::2], x[..., 1::2, 1::2])
    return _larger(first, second)


class MeanPool(nn.AdaptiveAvgPool2d):
    """Mean over the pixels of x [n, C, H, W], as [n, C, 1, 1].

    torch's own computes the same, and for x with channels last calls `as_strided_`, which `vmap` runs task by task.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-1, -2), keepdim=True)


def _larger(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a >= b, a, b)
