"""Tasks for methods that learn one classifier from labels of which most are wrong, with a few clean ones."""

from __future__ import annotations

import numpy as np
import torch
from pydantic.dataclasses import dataclass

import raymeta
from raymeta.tasks.episodes import Episode, Examples, Size

FEATURES = 6
CENTERS = 2 * np.random.Generator(np.random.Philox(key=7)).standard_normal((10, FEATURES))


@dataclass(frozen=True, kw_only=True)
class NoisyLabels(raymeta.TaskSet):
    """Classes that are the same in every task: clouds around fixed centers. Of the support labels a share that is drawn
    from the key is shuffled, which leaves as many of each class; query labels are right, and so are class ids."""

    way: int = 4
    shot: int = 8
    shuffled: float = 0.8
    goal = "classification"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (FEATURES,)

    @property
    def num_outputs(self) -> int:
        return self.way

    def size(self, split: str) -> Size:
        return Size(self.way, self.shot, 4)

    def num_classes(self, split: str) -> int:
        return self.way

    def episode(self, key: raymeta.TaskKey) -> Episode:
        draws = key.generator()
        support, query = (self._side(draws, per_class) for per_class in (self.shot, 4))
        moved = np.flatnonzero(draws.random(len(support.y)) < self.shuffled)
        noisy = support.y.clone()
        noisy[moved] = support.y[draws.permutation(moved)]
        return Episode(Examples(support.x, noisy, support.y), Examples(query.x, query.y, query.y))

    def _side(self, draws: np.random.Generator, per_class: int) -> Examples:
        y = np.repeat(np.arange(self.way), per_class)
        x = CENTERS[y] + draws.standard_normal((len(y), FEATURES))
        return Examples(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))
