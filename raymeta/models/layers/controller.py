"""A network that chooses one operation after another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymeta.models.layers.coordinate_lstm import LSTMCells

START = 0.08
"""Weights begin uniform in ±START, as those of Zoph and Le (ICLR 2017) do."""


class Controller(nn.Module):
    """An LSTM that sees each choice before it makes the next.

    A cell [edges] to the logits of its choices [edges, operations]; those of an edge depend on the choices before it
    alone. `sample` has it choose.
    """

    def __init__(self, operations: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.operations, self.state = operations, (layers, 2, hidden)
        self.cells = LSTMCells(operations, hidden, layers)
        self.logits = nn.Linear(hidden, operations)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -START, START)

    def forward(self, cell: Tensor, *, sample: bool = False) -> Tensor:
        """With `sample`, uniform numbers [edges] in place of a cell to the cell that they choose."""
        state, found = self.logits.weight.new_zeros(1, *self.state), []
        seen = state.new_zeros(1, self.operations)
        for given in cell.unbind():
            h, state = self.cells(seen, state)
            logits = self.logits(h)[0]
            choice = (given >= logits.softmax(0).cumsum(0)[:-1]).sum() if sample else given
            seen = (torch.arange(self.operations, device=cell.device) == choice).to(state.dtype)[None]
            found.append(choice if sample else logits)
        return torch.stack(found)
