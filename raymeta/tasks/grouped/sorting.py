"""From rows of groups to the pools of each split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split
from raymeta.tasks.grouped.pools import Arrays, Pool, taken
from raymeta.tasks.images.splits import ClassSplits
from raymeta.tasks.manifest import mark_of_bytes

SHOWN = 8
"""Groups that a note names."""
MOST_LABELS = 1000


class Rows(NamedTuple):
    """What a source gives, row by row; `content` is for the task set alone."""

    content: Any
    groups: list[str]
    labels: list[str] | None = None
    """where tasks have labels of their own"""
    splits: list[str] | None = None
    """what the column of splits says"""
    where: str = "the data"


class Encoded(NamedTuple):
    """All rows as inputs, and as targets in regression."""

    x: Arrays
    y: NDArray[np.float32] | None = None


def places_of(groups: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each group, by name."""
    places: dict[str, list[int]] = {name: [] for name in sorted(set(groups))}
    for place, name in enumerate(groups):
        places[name].append(place)
    return places


def labels_of(rows: Rows, train: Sequence[int]) -> tuple[str, ...]:
    """The labels that tasks share, by those of training. Raises `DataError` for a label that training lacks."""
    if rows.labels is None:
        return ()
    labels = tuple(sorted({rows.labels[place] for place in train}))
    other = next((place for place, label in enumerate(rows.labels) if label not in labels), None)
    if other is not None:
        raise DataError(
            f"{rows.where} row {other + 1}: no training task has the label {rows.labels[other]!r}, and the tasks' "
            "labels are the same in all splits"
        )
    if not 2 <= len(labels) <= MOST_LABELS:
        raise DataError(f"{rows.where}: tasks have {len(labels)} different labels; 2 to {MOST_LABELS} are needed")
    return labels


def pools_of(
    rows: Rows,
    encoded: Encoded,
    chosen: ClassSplits,
    labels: tuple[str, ...],
    least: Callable[[Split], int],
    mark: Callable[[list[int]], bytes],
    word: str,
) -> tuple[dict[Split, Pool], list[str]]:
    """The pools, of groups with `least` examples (of each label); and notes of those that are left out."""
    places, pools, notes = places_of(rows.groups), {}, []
    for split in SPLITS:
        cells = {name: _cells(places[name], rows.labels, labels) for name in chosen[split]}
        few = {name: min(map(len, own)) for name, own in cells.items() if min(map(len, own)) < least(split)}
        kept = {name: own for name, own in cells.items() if name not in few}
        notes += [_few_text(few, least(split), split, word, bool(labels))] if few else []
        pools[split] = _pool(encoded, kept, [mark_of_bytes(mark(places[name])) for name in kept])
    return pools, notes


def _cells(places: list[int], labels: Sequence[str] | None, known: tuple[str, ...]) -> list[list[int]]:
    if labels is None:
        return [places]
    return [[place for place in places if labels[place] == label] for label in known]


def _pool(encoded: Encoded, groups: Mapping[str, list[list[int]]], marks: list[str]) -> Pool:
    cells = [cell for own in groups.values() for cell in own]
    order = np.array([place for cell in cells for place in cell], dtype=np.int64)
    starts = np.cumsum([0, *map(len, cells)], dtype=np.int64)
    y = None if encoded.y is None else encoded.y[order]
    return Pool(taken(encoded.x, order), y, starts, list(groups), marks)


def _few_text(few: Mapping[str, int], least: int, split: Split, word: str, labelled: bool) -> str:
    told = ", ".join(f"{name} ({count})" for name, count in list(few.items())[:SHOWN])
    more = f", and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
    of = " of some label" if labelled else ""
    return f"{split}: {len(few)} {word} left out, fewer than {least} examples{of}: {told}{more}"
