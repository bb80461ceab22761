"""Tables of all architectures of a space with their accuracies, so that a search can be judged exactly."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from raymeta.keys import Split, TaskKey
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, stack_episodes


class ArchitectureTable(TaskSet):
    """Base of tables: every task is the same table, and a search looks architectures up in it.

    Support x [cells, edges] are all architectures as numbers of operations, one for each edge from 0 on, and y
    [cells, 1] their accuracies.
    """

    goal: ClassVar[Goal] = "regression"

    @abstractmethod
    def table(self) -> tuple[Tensor, Tensor]:
        """Architectures [cells, edges] and accuracies [cells, 1], as float32."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.table()[0].shape[1],)

    @property
    def num_outputs(self) -> int:
        return 1

    def num_classes(self, split: Split) -> int:
        return 0

    def size(self, split: Split) -> Size:
        return Size(1, len(self.table()[0]), 1)

    def num_episodes(self, split: Split) -> int | None:
        return None if split == "train" else 1

    def episode(self, key: TaskKey) -> Episode:
        cells, accuracies = self.table()
        return Episode(Examples(cells, accuracies), Examples(cells[:1], accuracies[:1]))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        return stack_episodes([self.episode(keys[0])] * len(keys))


def all_cells(edges: int, operations: int) -> NDArray[np.int64]:
    """Every choice of one of `operations` on each edge [cells, edges], the last edge fastest."""
    return np.array(list(itertools.product(range(operations), repeat=edges)))
