"""Images with a class each, and the uniform numbers that everything random about one of them follows from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Reals = NDArray[np.float64]


class Labelled(NamedTuple):
    """n images: `label` is the true class; images of one `item` of a class show the same thing and stay together."""

    images: NDArray[np.uint8]  # [n, channels, height, width]
    label: Ids  # [n]
    item: Ids  # [n] counted from 0 in each class
    domain: Ids  # [n]
    classes: list[str]
    domains: list[str]  # none where domains are not told apart
    white_paper: bool = False  # whether what lies outside of an image is white, and not black

    def draws(self, seed: int, what: str, columns: int) -> Reals:
        """Uniform numbers [n, columns] of each item, by `seed`, the name of its class and its number alone.

        Further classes or items do not change those of others, and images of one item have the same.
        """
        drawn = np.empty((len(self.label), columns))
        for c, name in enumerate(self.classes):
            rows = np.flatnonzero(self.label == c)
            if len(rows):
                items = self.item[rows]
                drawn[rows] = _generator(seed, what, name).random((int(items.max()) + 1, columns))[items]
        return drawn


def _generator(seed: int, what: str, name: str) -> np.random.Generator:
    word = hashlib.blake2b(f"{what}|{name}".encode(), digest_size=8).digest()
    key = np.array([seed, int.from_bytes(word, "little")], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def numbered(counts: Sequence[int]) -> tuple[Ids, Ids]:
    """Class of each image, and its number in the class, of so many images class after class."""
    label = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    item = np.concatenate([np.arange(count, dtype=np.int64) for count in counts] or [np.zeros(0, np.int64)])
    return label, item
