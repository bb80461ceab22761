"""Test episodes for the viewer: what the model saw, and what it said before and after each inner step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from raymeta.errors import DataError
from raymeta.runs import layout
from raymeta.trackers.scores import OF_GOAL
from raymeta.views.figures import episodes as figures
from raymeta.views.sources.files import json_object, read_bounded, stamp_of

Item = dict[str, Any]
MAX_EPISODES = 50
MAX_VALUES = 400_000
"""Probabilities of one episode; a larger one is not shown."""
MAX_LETTERS = 80


def read_episodes(run: Path, picture: Callable[[Path], str]) -> tuple[list[Item], list[str]]:
    """The episodes of a run, worst first, and in words what could not be read. `picture` makes a file's address."""
    items, problems = [], []
    for path in sorted((run / layout.EPISODES).glob("episode-*.json"))[:MAX_EPISODES]:
        try:
            items.append(read_episode(path, picture))
        except (DataError, ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
            problems.append(f"{path.name} cannot be shown: {str(error).splitlines()[0] if str(error) else 'damaged'}")
    return sorted(items, key=lambda item: item["rank"] or 0), problems


def read_episode(path: Path, picture: Callable[[Path], str]) -> Item:
    """One episode for the viewer. Raises `DataError`, or `ValueError` and its like for a damaged file."""
    content = json_object(read_bounded(path))
    steps = figures.score_by_step(content)
    rank = content.get("rank")
    item: Item = {
        "index": int(content["key"]["index"]),
        "rank": rank if isinstance(rank, int) else None,
        "score": OF_GOAL["classification" if "probabilities" in content else "regression"],
        "steps": steps,
    }
    if "probabilities" in content:
        return item | _classification(content, path, picture)
    if figures.is_fit(content):
        return item | {"kind": "fit", "spec": figures.fit(content)}
    return item | {"kind": "values"}


def _classification(content: Item, path: Path, picture: Callable[[Path], str]) -> Item:
    probabilities = np.asarray(content["probabilities"], float)  # [K + 1, Q, way]
    if probabilities.ndim != 3 or probabilities.size > MAX_VALUES:
        raise DataError("its probabilities are not of the shape [steps, queries, classes], or too many")
    labels = {side: [int(y) for y in content[f"{side}_y"]] for side in ("support", "query")}
    way = probabilities.shape[2]
    if len(labels["query"]) != probabilities.shape[1] or not all(0 <= y < way for ys in labels.values() for y in ys):
        raise DataError("its labels do not fit its probabilities")
    sheet = path.with_suffix(".png")
    boxes = _boxes(content, labels) if stamp_of(sheet) is not None else None
    return {
        "kind": "classes",
        "names": [figures.class_name(i) for i in range(way)],
        "titles": _titles(content, way),
        "support": labels["support"],
        "query": labels["query"],
        "probabilities": np.round(np.nan_to_num(probabilities), 3).tolist(),
        "boxes": boxes,
        "sheet": picture(sheet) if boxes else None,
    }


def _titles(content: Item, way: int) -> list[str] | None:
    """The classes' own names, where the task set has any."""
    found = content.get("class_names")
    if not isinstance(found, list) or len(found) != way:
        return None
    return [str(name)[:MAX_LETTERS] for name in found]


def _boxes(content: Item, labels: dict[str, list[int]]) -> dict[str, list[list[int]]] | None:
    """[left, top, width, height] of every image; None where the file (an old one) does not say."""
    found = content.get("boxes")
    if not isinstance(found, dict):
        return None
    boxes = {side: np.asarray(found[side], int) for side in ("support", "query")}
    if any(boxes[side].shape != (len(ys), 4) or (boxes[side] < 0).any() for side, ys in labels.items()):
        raise DataError("its boxes do not fit its labels")
    return {side: array.tolist() for side, array in boxes.items()}
