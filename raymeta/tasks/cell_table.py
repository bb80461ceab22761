"""A small table of made-up architectures."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.options import STRICT
from raymeta.tasks.architectures import ArchitectureTable, all_cells


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CellTable(ArchitectureTable):
    """All cells of `edges` edges with one of `operations` operations on each, and an accuracy for every cell.

    Accuracies are a made-up landscape: a share of every edge's operation and of every pair of neighbouring edges,
    drawn from `table_seed` and scaled to [0, 1].
    """

    edges: PositiveInt = 6
    """edges of a cell"""
    operations: PositiveInt = 3
    """operations to choose from on each edge"""
    table_seed: NonNegativeInt = 0
    """seed of the accuracies"""

    def table(self) -> tuple[Tensor, Tensor]:
        cells, accuracies = _table(self.edges, self.operations, self.table_seed)
        return torch.from_numpy(cells), torch.from_numpy(accuracies)


@cache
def _table(edges: int, operations: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    alone, pairs = rng.random((edges, operations)), rng.random((edges - 1, operations, operations))
    cells = all_cells(edges, operations)
    total = alone[np.arange(edges), cells].sum(1) + pairs[np.arange(edges - 1), cells[:, :-1], cells[:, 1:]].sum(1)
    scaled = (total - total.min()) / max(np.ptp(total), 1e-12)
    return cells.astype(np.float32), scaled.astype(np.float32)[:, None]
