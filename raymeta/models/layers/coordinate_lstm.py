"""An LSTM that is applied to every coordinate of a vector by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CoordinateLSTM(nn.Module):
    """`layers` LSTM cells and a linear output, from primitives, which differentiate and vectorise.

    Inputs [n, inputs] and state [n, layers, 2, hidden] (h and c of each layer) to (outputs [n], next state).
    """

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * (layers - 1)]
        self.gates = nn.ModuleList(nn.Linear(size + hidden, 4 * hidden) for size in sizes)
        self.output = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        following = []
        for gates, (h, c) in zip(self.gates, (layer.unbind(1) for layer in state.unbind(1)), strict=True):
            keep, write, show, value = gates(torch.cat([x, h], -1)).chunk(4, -1)
            c = torch.sigmoid(keep) * c + torch.sigmoid(write) * torch.tanh(value)
            x = torch.sigmoid(show) * torch.tanh(c)
            following.append(torch.stack([x, c], 1))
        return self.output(x)[..., 0], torch.stack(following, 1)
