"""What an edge of a cell does to an image: the operations of DARTS (Liu et al., ICLR 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.models.layers.convolution import Conv2d
from raymeta.models.layers.norm import NormKind, make_norm


class Shape(NamedTuple):
    """Channels of an operation's inputs and outputs, its stride, and its norms."""

    channels: int
    stride: int = 1
    norm: NormKind = "batch"
    groups: int = 1
    affine: bool = False

    def make_norm(self) -> nn.Module:
        return make_norm(self.norm, self.channels, self.groups, affine=self.affine)

    def plain_norm(self) -> nn.Module:
        """The norm after a pooling, which has no gain and shift."""
        return make_norm(self.norm, self.channels, self.groups, affine=False)


class Nothing(nn.Module):
    """Zeros, in the size of the output."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class Halve(nn.Module):
    """x [n, in_channels, h, w] to [n, channels, ⌈h / 2⌉, ⌈w / 2⌉] by 1 x 1 convolutions of its even and odd pixels."""

    def __init__(self, in_channels: int, shape: Shape) -> None:
        super().__init__()
        even = shape.channels // 2
        self.even = Conv2d(in_channels, even, 1, 2, bias=False)
        self.odd = Conv2d(in_channels, shape.channels - even, 1, 2, bias=False)
        self.norm = shape.make_norm()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        odd = F.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))
        z: Tensor = self.norm(torch.cat([self.even(x), self.odd(odd)], 1))
        return z


class MaxPool3x3(nn.Module):
    """Maximum over 3 x 3 pixels."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, self.stride, padding=1)


def conv_1x1(in_channels: int, shape: Shape) -> nn.Module:
    """ReLU, 1 x 1 convolution, norm."""
    return nn.Sequential(nn.ReLU(), Conv2d(in_channels, shape.channels, 1, bias=False), shape.make_norm())


def _skip(shape: Shape) -> nn.Module:
    return nn.Identity() if shape.stride == 1 else Halve(shape.channels, shape)


def _max_pool(shape: Shape) -> nn.Module:
    return nn.Sequential(MaxPool3x3(shape.stride), shape.plain_norm())


def _avg_pool(shape: Shape) -> nn.Module:
    pool = nn.AvgPool2d(3, shape.stride, padding=1, count_include_pad=False)
    return nn.Sequential(pool, shape.plain_norm())


def _depthwise(shape: Shape, size: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    c = shape.channels
    padding = dilation * (size // 2)
    spatial = Conv2d(c, c, size, stride, padding=padding, dilation=dilation, groups=c, bias=False)
    return [nn.ReLU(), spatial, Conv2d(c, c, 1, bias=False), shape.make_norm()]


def _separable(size: int) -> Callable[[Shape], nn.Module]:
    return lambda shape: nn.Sequential(*_depthwise(shape, size, shape.stride), *_depthwise(shape, size, 1))


def _dilated(size: int) -> Callable[[Shape], nn.Module]:
    return lambda shape: nn.Sequential(*_depthwise(shape, size, shape.stride, dilation=2))


MAKE: Mapping[str, Callable[[Shape], nn.Module]] = {
    "none": lambda shape: Nothing(shape.stride),
    "skip": _skip,
    "max_pool_3": _max_pool,
    "avg_pool_3": _avg_pool,
    "sep_conv_3": _separable(3),
    "sep_conv_5": _separable(5),
    "dil_conv_3": _dilated(3),
    "dil_conv_5": _dilated(5),
}
"""Modules of operations by name: [n, channels, h, w] to the same channels, each side divided by the stride."""
