"""Which groups are in which split: by lists, by a column of the data, or by ratio and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split
from raymeta.tasks.images.listing import SPLIT_NAMES
from raymeta.tasks.images.splits import ClassSplits, cut_by_ratio, require_present

_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def by_lists(lists: ClassSplits, groups: Mapping[str, Sequence[int]], where: str) -> ClassSplits:
    """Raises `DataError` for a listed group without examples."""
    require_present(lists, groups, where, f"It has {', '.join(list(groups)[:8])}, ...")
    return lists


def by_column(groups: Mapping[str, Sequence[int]], values: Sequence[str], where: str) -> ClassSplits:
    """Raises `DataError` for a value that is no split, and a group in several splits."""
    splits: ClassSplits = {split: [] for split in SPLITS}
    for name, places in groups.items():
        found = {_split_of(values[place], where, place) for place in places}
        if len(found) > 1:
            raise DataError(
                f"{where}: {name} is in several splits ({', '.join(sorted(found))}): a class or a task belongs to one"
            )
        splits[found.pop()].append(name)
    return splits


def _split_of(value: str, where: str, place: int) -> Split:
    split = _SPLIT_OF.get(value.strip().lower())
    if split is None:
        raise DataError(f"{where} row {place + 1}: its split is {value!r}, and train, val or test is needed")
    return split


def by_ratio(groups: Mapping[str, Sequence[int]], ratio: Sequence[float], seed: int) -> ClassSplits:
    """Shuffled by `seed`, then cut."""
    return cut_by_ratio(list(groups), ratio, seed)
