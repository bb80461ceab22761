"""Classification of points around centers, in double precision, drawn by numpy from the four values of a key."""

from __future__ import annotations

import numpy as np
import torch
from pydantic.dataclasses import dataclass

import raymeta
from raymeta.tasks.episodes import Episode, Examples, Size

SPLITS = ("train", "val", "test")
NUM_CLASSES = {"train": 5, "val": 4, "test": 4}
DIM, WAY, SHOT, QUERY_SHOT = 4, 3, 2, 3


@dataclass(frozen=True, kw_only=True)
class Clouds(raymeta.TaskSet):
    """Episodes of three classes, of five in training and four at validation and test."""

    goal, num_outputs, input_shape = "classification", WAY, (DIM,)

    def size(self, split: str) -> Size:
        return Size(WAY, SHOT, QUERY_SHOT)

    def num_classes(self, split: str) -> int:
        return NUM_CLASSES[split]

    def episode(self, key: raymeta.TaskKey) -> Episode:
        return drawn(*key)


def drawn(seed: int, split: str, step: int, index: int) -> Episode:
    """The episode of a task; nothing of the keys of raymeta is used."""
    place = SPLITS.index(split)
    centers = 1.5 * np.random.default_rng(place).standard_normal((NUM_CLASSES[split], DIM))
    rng = np.random.default_rng([seed, place, step, index])
    classes = rng.permutation(NUM_CLASSES[split])[:WAY]

    def side(per_class: int) -> Examples:
        y = np.repeat(np.arange(WAY), per_class)
        x = centers[classes[y]] + rng.standard_normal((len(y), DIM))
        return Examples(*(torch.from_numpy(value) for value in (x, y, classes[y])))

    return Episode(side(SHOT), side(QUERY_SHOT))
