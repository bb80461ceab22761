"""Convolution that a compiler can turn into a matrix product."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.autodiff.graphs import is_traced

FEW_VALUES = 750_000
"""Values of a task's patches, output pixels times a pixel's patch, up to which a product beats a convolution on a CPU:
more than that leave its cache."""


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` of x [n, C, H, W]; compiled on a CPU, small ones without groups and dilation are matrix products.

    Each task has weights of its own after an inner step, and a convolution kernel spends its time on preparing them
    where images are few and small. A product of patches and weights does not, and the compiler gathers the patches in
    the pass that made the image.
    """

    def forward(self, x: Tensor) -> Tensor:
        compiled = is_traced() and not torch.compiler.is_exporting()
        if compiled and x.device.type == "cpu" and x.dim() == 4 and self._is_plain():
            height, width = self.output_size(x)
            if x.shape[0] * height * width * self.weight[0].numel() <= FEW_VALUES:
                return self.product(x, height, width)
        return super().forward(x)

    def _is_plain(self) -> bool:
        padded = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        return padded and self.groups == 1 and self.dilation == (1, 1)

    def output_size(self, x: Tensor) -> tuple[int, int]:
        (top, left), (rows, columns) = self._pads(), self.kernel_size
        down, across = self.stride
        return (x.shape[2] + 2 * top - rows) // down + 1, (x.shape[3] + 2 * left - columns) // across + 1

    def _pads(self) -> tuple[int, int]:
        assert not isinstance(self.padding, str)
        return self.padding[0], self.padding[1]

    def product(self, x: Tensor, height: int, width: int) -> Tensor:
        """Patches [n · height · width, kernel · C] times weights [kernel · C, O].

        With a stride, pixels are sorted by their place within it first, so that patches are made of whole neighbouring
        blocks: without, a compiler asks at every pixel of the derivative which patches it was in.
        """
        (top, left), (rows, columns), (down, across) = self._pads(), self.kernel_size, self.stride
        tall, wide = height + (rows - 1) // down, width + (columns - 1) // across
        bottom, right = down * tall - top - x.shape[2], across * wide - left - x.shape[3]
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom))
        phases = [row.unbind(3) for row in padded.reshape(x.shape[0], tall, down, wide, across, -1).unbind(2)]
        patches = [
            phases[i % down][j % across][:, i // down : i // down + height, j // across : j // across + width]
            for i, j in product(range(rows), range(columns))
        ]
        flat = torch.cat(patches, -1).reshape(x.shape[0] * height * width, -1)
        weights = self.weight.permute(0, 2, 3, 1).reshape(self.out_channels, -1).t()
        out = flat @ weights if self.bias is None else torch.addmm(self.bias, flat, weights)
        return out.reshape(x.shape[0], height, width, -1).permute(0, 3, 1, 2)
