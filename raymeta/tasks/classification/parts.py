"""The parts of a training problem: what is learned from, the few clean images, and what is held back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from raymeta.errors import DataError
from raymeta.tasks.classification.labelled import Ids, Labelled

Part = Literal["train", "clean", "val", "test"]
HELD_BACK: tuple[Part, ...] = ("test", "val", "clean")
"""Parts whose sizes are given, in the order in which they are cut; the rest is for training."""


class Cut(NamedTuple):
    """How a problem is cut: images of each class for the parts that are held back, as shares below 1 or as numbers.

    `imbalance` is how many times as many training images the first class has as the last one. A domain that is held out
    is the test part, and then nothing of the others is.
    """

    amounts: Mapping[Part, float]
    seed: int = 0
    imbalance: float = 1.0
    held_out: int | None = None


def parts_of(data: Labelled, cut: Cut) -> dict[Part, Ids]:
    """Places of the images of each part, mixed over classes. Raises `DataError` for a class with too few."""
    order, mixed = data.draws(cut.seed, "part", 2).T
    found: dict[Part, list[Ids]] = {part: [] for part in ("train", *HELD_BACK)}
    for c, rows in _cells(data, cut, found):
        for part, some in _pieces(data, cut, c, rows[order[rows].argsort(kind="stable")]):
            found[part].append(some)
    joined = {part: np.concatenate(some or [np.zeros(0, np.int64)]) for part, some in found.items()}
    return {part: rows[np.lexsort((rows, mixed[rows]))] for part, rows in joined.items()}


def _cells(data: Labelled, cut: Cut, found: dict[Part, list[Ids]]) -> Iterator[tuple[int, Ids]]:
    """Classes, in each domain, that are to be cut; images of the domain that is held out are put away."""
    for d in range(max(1, len(data.domains))):
        inside = data.domain == d
        if d == cut.held_out:
            found["test"].append(np.flatnonzero(inside))
            continue
        yield from ((c, np.flatnonzero(inside & (data.label == c))) for c in range(len(data.classes)))


def _pieces(data: Labelled, cut: Cut, c: int, rows: Ids) -> Iterator[tuple[Part, Ids]]:
    """One class cut, its images in the order in which they are taken; an item is never cut in two."""
    _, first, which = np.unique(data.item[rows], return_index=True, return_inverse=True)
    rank = first.argsort().argsort()[which]  # of each image's item in that order
    num_items, start = len(first), 0
    sizes = {part: _size(cut.amounts.get(part, 0), num_items) for part in HELD_BACK}
    if cut.held_out is not None:
        sizes["test"] = 0
    left = num_items - sum(sizes.values())
    if left < 1:
        raise DataError(_too_few(data, c, rows, num_items, sizes))
    for part, size in sizes.items():
        yield part, rows[(rank >= start) & (rank < start + size)]
        start += size
    kept = start + kept_of(left, c, len(data.classes), cut.imbalance)
    yield "train", rows[(rank >= start) & (rank < kept)]


def _size(amount: float, num_items: int) -> int:
    """A share is of one item at least, so that small classes have all parts."""
    return max(round(amount * num_items), int(amount > 0)) if amount < 1 else int(amount)


def kept_of(count: int, c: int, num_classes: int, imbalance: float) -> int:
    """Training images that class `c` keeps of `count`, at least one: a long tail, count · imbalance^(−c / (C − 1))."""
    share: float = imbalance ** (-c / max(1, num_classes - 1))
    return max(1, round(count * share))


def _too_few(data: Labelled, c: int, rows: Ids, num_items: int, sizes: Mapping[Part, int]) -> str:
    where = f" in domain {data.domains[data.domain[rows[0]]]}" if data.domains and len(rows) else ""
    asked = ", ".join(f"tasks.{part} {size}" for part, size in sizes.items() if size)
    images = f"{num_items} image{'s' * (num_items != 1)}"
    return (
        f"class {data.classes[c]} has {images}{where}, and {asked or 'the parts'} leave none to train on: lower these, "
        "give shares below 1, or give the class more images"
    )


def batch_size(count: int, most: int) -> int:
    """Images of a batch, from most / 2 to `most`, so that batches of one size leave the fewest of `count` over."""
    if count <= most:
        return count
    return min(range(most, most // 2, -1), key=lambda size: (count % size, -size))
