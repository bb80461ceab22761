"""LSTMs that are applied to every coordinate of a vector by itself, as learned optimisers are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LSTMCells(nn.Module):
    """`layers` LSTM cells from primitives, which differentiate and vectorise.

    Inputs [n, inputs] and state [n, layers, 2, hidden] (h and c of each layer) to (the last h [n, hidden], next state).
    """

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * (layers - 1)]
        self.gates = nn.ModuleList(nn.Linear(size + hidden, 4 * hidden) for size in sizes)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        following = []
        for gates, (h, c) in zip(self.gates, (layer.unbind(1) for layer in state.unbind(1)), strict=True):
            keep, write, show, value = gates(torch.cat([x, h], -1)).chunk(4, -1)
            c = torch.sigmoid(keep) * c + torch.sigmoid(write) * torch.tanh(value)
            x = torch.sigmoid(show) * torch.tanh(c)
            following.append(torch.stack([x, c], 1))
        return x, torch.stack(following, 1)


class CoordinateLSTM(LSTMCells):
    """`LSTMCells` with a linear output: inputs and state to (outputs [n], next state)."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__(inputs, hidden, layers)
        self.output = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h, following = super().forward(x, state)
        return self.output(h)[..., 0], following


class GatedUpdate(nn.Module):
    """A cell whose state is a parameter θ: θ ← f ⊙ θ − i ⊙ slope, for every coordinate by itself.

    An LSTM reads `inputs` [n, 4]; f and i are sigmoids of its h, θ and the gate's own last value. From inputs, slope
    [n], θ [n], the LSTM's state [n, 1, 2, hidden] and the last gates (f, i) [n, 2] to the next of the last three.
    """

    def __init__(
        self, hidden: int, forget: tuple[float, float] = (4.0, 6.0), write: tuple[float, float] = (-5.0, -4.0)
    ) -> None:
        """The gates' biases are drawn from the ranges `forget` and `write`."""
        super().__init__()
        self.cells = LSTMCells(4, hidden, 1)
        self.forget, self.write = nn.Linear(hidden + 2, 1), nn.Linear(hidden + 2, 1)
        for gate, (low, high) in ((self.forget, forget), (self.write, write)):
            nn.init.uniform_(gate.weight, -0.01, 0.01)
            nn.init.uniform_(gate.bias, low, high)

    def forward(
        self, inputs: Tensor, slope: Tensor, theta: Tensor, state: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        h, state = self.cells(inputs, state)
        read = [torch.cat([h, theta[:, None], gate], 1) for gate in (last[:, :1], last[:, 1:])]
        forget, write = (torch.sigmoid(gate(x)) for gate, x in zip((self.forget, self.write), read, strict=True))
        return forget[:, 0] * theta - write[:, 0] * slope, state, torch.cat([forget, write], 1)


def preprocess(value: Tensor, p: float) -> Tensor:
    """Inputs [n, 2] of an LSTM for numbers [n]: magnitude and sign on a scale of their own.

    From magnitude e^−p they are (log|v| / p, sign v), and (−1, e^p v) below it (Andrychowicz et al. 2016, appendix A).
    """
    magnitude = value.abs()
    is_large = magnitude >= math.exp(-p)
    logarithm = torch.log(torch.where(is_large, magnitude, 1.0)) / p
    first = torch.where(is_large, logarithm, -1.0)
    second = torch.where(is_large, value.sign(), math.exp(p) * value)
    return torch.stack([first, second], -1)
