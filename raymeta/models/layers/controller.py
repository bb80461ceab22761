"""A network that chooses one operation after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raymeta.models.layers.coordinate_lstm import LSTMCells

START = 0.08
"""Weights begin uniform in ±START, as those of Zoph and Le (ICLR 2017) do."""


class Controller(nn.Module):
    """An LSTM that sees each choice before it makes the next.

    A cell [edges] to the logits of its choices [edges, operations]; those of an edge depend on the choices before it
    alone. `sample` has it choose. With `sizes` there are that many possibilities of each choice, the logits of others
    are -inf, and each choice has biases of its own.
    """

    def __init__(self, operations: int, hidden: int, layers: int, sizes: Sequence[int] = ()) -> None:
        super().__init__()
        self.operations, self.state, self.sizes = operations, (layers, 2, hidden), tuple(sizes)
        self.cells = LSTMCells(operations, hidden, layers)
        self.logits = nn.Linear(hidden, operations)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -START, START)
        if sizes:
            self.places = nn.Parameter(torch.zeros(len(sizes), operations))

    def forward(self, cell: Tensor, *, sample: bool = False) -> Tensor:
        """With `sample`, uniform numbers [edges] in place of a cell to the cell that they choose."""
        state, found = self.logits.weight.new_zeros(1, *self.state), []
        seen = state.new_zeros(1, self.operations)
        for place, given in enumerate(cell.unbind()):
            h, state = self.cells(seen, state)
            logits = self._of_place(self.logits(h)[0], place)
            size = self.sizes[place] if self.sizes else self.operations
            choice = (given >= logits.softmax(0).cumsum(0)[: size - 1]).sum() if sample else given
            seen = (torch.arange(self.operations, device=cell.device) == choice).to(state.dtype)[None]
            found.append(choice if sample else logits)
        return torch.stack(found)

    def _of_place(self, logits: Tensor, place: int) -> Tensor:
        if not self.sizes:
            return logits
        closed = torch.arange(self.operations, device=logits.device) >= self.sizes[place]
        return (logits + self.places[place]).masked_fill(closed, -torch.inf)
