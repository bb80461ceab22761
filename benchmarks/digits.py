"""Scikit-learn's digits as training problems of all ten classes: other images in training, validation and test."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from raymeta.keys import TaskKey
from raymeta.tasks.episodes import Episode, Examples

SHOT = 15
SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""Of the images of each digit, in the order of the data set."""


def digits(key: TaskKey) -> Episode:
    """`SHOT` images of each digit [150, 1, 8, 8], and one more of each, drawn from the part of the key's split."""
    images, labels = _images()
    generator = key.generator()
    chosen = np.stack([generator.permutation(_part(labels, digit, key.split))[: SHOT + 1] for digit in range(10)])
    return Episode(*(_examples(images, labels, rows.ravel()) for rows in (chosen[:, :SHOT], chosen[:, SHOT:])))


def _examples(images: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Examples:
    return Examples(torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]))


def _part(labels: NDArray[np.int64], digit: int, split: str) -> NDArray[np.int64]:
    rows = np.flatnonzero(labels == digit)
    first, last = (round(share * len(rows)) for share in SHARES[split])
    return rows[first:last]


@cache
def _images() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    found = load_digits()
    return found.images[:, None].astype(np.float32) / 16, found.target.astype(np.int64)
