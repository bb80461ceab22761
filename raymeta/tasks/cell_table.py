"""A small table of architectures with their accuracies, so that a search can be judged exactly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.keys import Split, TaskKey
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, stack_episodes


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CellTable(TaskSet):
    """All cells of `edges` edges with one of `operations` operations on each, and an accuracy for every cell.

    Accuracies are a made-up landscape: a share of every edge's operation and of every pair of neighbouring edges,
    drawn from `table_seed` and scaled to [0, 1]. Support x [cells, edges] are the cells, y [cells, 1] their accuracies;
    every task is the same table.
    """

    goal: ClassVar[Goal] = "regression"

    edges: PositiveInt = 6
    """edges of a cell"""
    operations: PositiveInt = 3
    """operations to choose from on each edge"""
    table_seed: NonNegativeInt = 0
    """seed of the accuracies"""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.edges,)

    @property
    def num_outputs(self) -> int:
        return 1

    def num_classes(self, split: Split) -> int:
        return 0

    def size(self, split: Split) -> Size:
        return Size(1, self.operations**self.edges, 1)

    def num_episodes(self, split: Split) -> int | None:
        return None if split == "train" else 1

    def episode(self, key: TaskKey) -> Episode:
        cells, accuracies = (torch.from_numpy(part) for part in _table(self.edges, self.operations, self.table_seed))
        table = Examples(cells, accuracies)
        return Episode(table, Examples(cells[:1], accuracies[:1]))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        return stack_episodes([self.episode(keys[0])] * len(keys))


@cache
def _table(edges: int, operations: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    alone, pairs = rng.random((edges, operations)), rng.random((edges - 1, operations, operations))
    cells = np.array(list(itertools.product(range(operations), repeat=edges)))
    total = alone[np.arange(edges), cells].sum(1) + pairs[np.arange(edges - 1), cells[:, :-1], cells[:, 1:]].sum(1)
    scaled = (total - total.min()) / max(np.ptp(total), 1e-12)
    return cells.astype(np.float32), scaled.astype(np.float32)[:, None]
