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
    names: NDArray[np.str_] | None = None  # [n] of items, where these have any: files, emoji
    white_paper: bool = False  # whether what lies outside of an image is white, and not black

    def draws(self, seed: int, what: str, columns: int) -> Reals:
        """Uniform numbers [n, columns] of each item, by `seed`, the names of its class and of itself alone.

        Further classes, images or files do not change those of others, and images of one item have the same.
        """
        names = (self.item if self.names is None else self.names).tolist()
        texts = [f"{seed}|{what}|{self.classes[c]}|{name}" for c, name in zip(self.label.tolist(), names, strict=True)]
        digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8 * columns).digest() for text in texts)
        words = np.frombuffer(digests, "<u8").reshape(len(texts), columns)
        drawn: Reals = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return drawn


def numbered(counts: Sequence[int]) -> tuple[Ids, Ids]:
    """Class of each image, and its number in the class, of so many images class after class."""
    label = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    item = np.concatenate([np.arange(count, dtype=np.int64) for count in counts] or [np.zeros(0, np.int64)])
    return label, item
