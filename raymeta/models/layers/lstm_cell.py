"""One step of an LSTM from primitives, which differentiates twice and vectorises, as torch's own does not."""

from __future__ import annotations

from torch import Tensor, nn


class LSTMCell(nn.Module):
    """(x [n, inputs], h [n, hidden], c [n, hidden]) to the next (h, c); the forget gate starts open."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(inputs, 4 * hidden)
        self.of_state = nn.Linear(hidden, 4 * hidden, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        write, keep, value, show = (self.of_input(x) + self.of_state(h)).chunk(4, dim=-1)
        c = (keep + 1).sigmoid() * c + write.sigmoid() * value.tanh()
        return show.sigmoid() * c.tanh(), c
