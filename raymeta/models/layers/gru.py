"""A gated recurrent unit from primitives, since torch's own has no rule for vmap."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GRU(nn.Module):
    """A sequence [L, inputs] to its states [L, hidden], from a state of zeros.

    With reset and update gates r and z: h ← (1 − z) tanh(Wx + b + r (Vh + c)) + z h, the equations of torch's `nn.GRU`.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(inputs, 3 * hidden), nn.Linear(hidden, 3 * hidden)

    def forward(self, sequence: Tensor) -> Tensor:
        from_input = self.of_input(sequence)
        state, states = from_input.new_zeros(from_input.shape[1] // 3), []
        for row in from_input:
            (reset_x, update_x, new_x), (reset_h, update_h, new_h) = row.chunk(3), self.of_state(state).chunk(3)
            update = (update_x + update_h).sigmoid()
            new = (new_x + (reset_x + reset_h).sigmoid() * new_h).tanh()
            state = (1 - update) * new + update * state
            states.append(state)
        return torch.stack(states)
