"""Layers that read a context: a vector which is the task's own, beside the inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymeta.models.layers.film import film

CONTEXT = "context"
"""Last part of the name of the buffer that holds one."""


class Modulated(nn.Module):
    """A layer whose output [n, C, *spatial] is modulated by a context: gain and shift are affine in it.

    `context` [d] is a buffer, zero unless a method puts another in its place.
    """

    context: Tensor

    def __init__(self, layer: nn.Module, num_channels: int, num_context: int) -> None:
        super().__init__()
        self.layer = layer
        self.generator = nn.Linear(num_context, 2 * num_channels)
        nn.init.zeros_(self.generator.bias)
        self.register_buffer(CONTEXT, self.generator.weight.new_zeros(num_context))

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self.generator(self.context).chunk(2)
        return film(self.layer(x), 1 + gain, shift)


class WithContext(nn.Module):
    """`body` on inputs [n, C, *spatial] beside which a context [d] stands: [n, C + d, *spatial].

    `context` is a buffer, zero unless a method puts another in its place.
    """

    context: Tensor

    def __init__(self, body: nn.Module, num_context: int) -> None:
        super().__init__()
        self.body = body
        self.register_buffer(CONTEXT, torch.zeros(num_context))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.dim() - 2))
        context = self.context.view(shape).expand(len(x), -1, *x.shape[2:])
        outputs: Tensor = self.body(torch.cat([x, context.to(x.dtype)], 1))
        return outputs
