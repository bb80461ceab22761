"""Which classes are for training, validation and test: published lists, and cuts by ratio or by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split

ClassSplits = dict[Split, list[str]]
Share = Annotated[float, Field(ge=0, lt=1)]


def published(name: str) -> dict[Split, Any]:
    """The list `name` that raymeta ships (`raymeta/tasks/images/published/NAME.json`)."""
    text = resources.files("raymeta.tasks.images").joinpath("published", f"{name}.json").read_text(encoding="utf-8")
    lists: dict[Split, Any] = json.loads(text)
    return lists


def shuffled(names: Sequence[str], seed: int) -> list[str]:
    """`names` in an order that `seed` determines for good: by uniform numbers of Philox, not numpy's shuffle."""
    order = np.random.Generator(np.random.Philox(key=seed)).random(len(names)).argsort(kind="stable")
    return [names[i] for i in order]


def cut(names: Sequence[str], num_val: int, num_test: int, seed: int) -> ClassSplits:
    """Shuffle and cut: first the training classes, then `num_val`, then `num_test`; each part in its old order."""
    order = shuffled(names, seed)
    num_train = len(names) - num_val - num_test
    parts = order[:num_train], order[num_train : len(names) - num_test], order[len(names) - num_test :]
    rank = {name: i for i, name in enumerate(names)}
    return {split: sorted(part, key=rank.__getitem__) for split, part in zip(SPLITS, parts, strict=True)}


def cut_by_ratio(names: Sequence[str], ratio: Sequence[float], seed: int) -> ClassSplits:
    """`cut` with shares of validation and test rounded to whole classes."""
    num_val, num_test = (round(share * len(names)) for share in ratio[1:])
    return cut(names, num_val, min(num_test, len(names) - num_val), seed)


def require_whole(ratio: Sequence[float], lists: ClassSplits) -> None:
    """Raise `ValueError` unless shares make 1, and classes are listed once, for training and test if at all."""
    if abs(sum(ratio) - 1) > 1e-6:
        raise ValueError(f"split_ratio adds up to {sum(ratio):g}: its three shares must make 1")
    if any(lists.values()) and not (lists["train"] and lists["test"]):
        raise ValueError(
            "give train_classes, test_classes and, unless nothing is validated, val_classes, or none of them"
        )
    names = [name for split in SPLITS for name in lists[split]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"classes listed twice in train_classes, val_classes, test_classes: {', '.join(twice)}")


def require_present(splits: Mapping[Split, Sequence[str]], present: Mapping[str, Any], where: str, remedy: str) -> None:
    """Raise `DataError` unless every listed class is among those `present`."""
    wanted = [name for split in SPLITS for name in splits[split]]
    missing = [name for name in wanted if name not in present]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} classes are not in {where}: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. {remedy}"
        )


def shares_for(num_classes: int, ways: Mapping[Split, int]) -> list[float] | None:
    """Shares of train, val and test that give each split of `ways` at least its way; None where none can.

    Validation and test get what they need, or their usual share if that is more; splits that are not asked get nothing.
    """
    usual = {"val": 0.16, "test": 0.2}
    least = {split: ways.get(split, 0) for split in SPLITS}
    counts = {s: max(least[s], round(usual[s] * num_classes)) if s in ways else 0 for s in ("val", "test")}
    if num_classes - sum(counts.values()) < least["train"]:
        counts = {split: least[split] for split in ("val", "test")}
    if num_classes - sum(counts.values()) < max(least["train"], 1):
        return None
    val, test = (round(counts[split] / num_classes, 4) for split in ("val", "test"))
    return [round(1 - val - test, 4), val, test]
