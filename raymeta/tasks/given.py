"""Task sets of what somebody holds in Python, in a line each.

One label for an example, or targets: several labels, segmentation and detection are out of scope.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from raymeta.errors import DataError
from raymeta.keys import TaskKey
from raymeta.system.their_code import recorded
from raymeta.tasks.episodes import Episode
from raymeta.tasks.function import FunctionTasks
from raymeta.tasks.grouped.arrays import ArrayTasks, Given, Kind
from raymeta.tasks.grouped.handed_over import hand_over
from raymeta.tasks.rows import as_json
from raymeta.tasks.tables.task_set import Tables
from raymeta.tasks.text.task_set import Text


def from_arrays(
    x: Any, y: Any, *, groups: Any = None, split: Any = None, kind: Kind | None = None, **options: Any
) -> ArrayTasks:
    """Tasks of x [n, *feature], or of several inputs by name, and y [n]; copies are kept in this process.

    Without `groups`, y are classes that are sampled into tasks. With them, each group is a task, and y its targets
    where they are floats, else labels that all tasks share. `split` [n] says train, val or test; `options` are those
    of `--tasks arrays`.

    A run records a hash of the data. To resume or evaluate it in another process, make the same tasks again first.
    """
    arrays = {name: _array(value) for name, value in x.items()} if isinstance(x, Mapping) else _array(x)
    labels = _array(y)
    given = Given(arrays, labels, *(None if v is None else _array(v) for v in (groups, split)))
    if kind is None:
        kind = "classes" if groups is None else "targets" if labels.dtype.kind == "f" else "labels"
    return ArrayTasks(sha256=hand_over(_sha256(given), given), kind=kind, **options)


def from_dataset(dataset: Any, **options: Any) -> ArrayTasks:
    """Tasks of a map-style torch Dataset whose items are (x, y), all of one shape; it is read once, into memory.

    Classes have the names in `dataset.classes` where there are any. Raises `DataError` naming an item of another kind.
    """
    items = [dataset[place] for place in range(len(dataset))]
    inputs, labels = [], []
    for place, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"dataset[{place}] is a {type(item).__name__}, and a pair (x, y) is needed")
        inputs.append(_input(item[0], place))
        labels.append(np.asarray(item[1]))
    names = getattr(dataset, "classes", None)
    y = [names[int(label)] for label in labels] if names is not None else labels
    if isinstance(inputs[0], dict):
        return from_arrays({name: _stacked([one[name] for one in inputs]) for name in inputs[0]}, y, **options)
    return from_arrays(_stacked(inputs), y, **options)


def from_frame(frame: Any, **options: Any) -> Tables | Text:
    """Tasks of a DataFrame, one row an example: texts where `text` names their column, else as `--tasks tables`."""
    names = [str(name) for name in frame.columns]
    columns = [frame[name].tolist() for name in frame.columns]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if not rows:
        raise DataError("the frame has no rows")
    sha256 = hand_over(hashlib.sha256(as_json(rows)).hexdigest(), rows)
    return Text(sha256=sha256, **options) if "text" in options else Tables(sha256=sha256, **options)


def from_function(function: Callable[[TaskKey], Episode], *, classes: int = 0) -> FunctionTasks:
    """Tasks that `function` makes of their keys, which must give the same episode for the same key anywhere.

    Raises `ConfigError` for a function that no import path leads to.
    """
    tasks = FunctionTasks(path=recorded(function, "from_function"), classes=classes)
    tasks.__dict__["_function"] = function
    return tasks


def _array(value: Any) -> np.ndarray[Any, Any]:
    return np.array(value.detach().cpu().numpy() if hasattr(value, "detach") else value)


def _input(value: Any, place: int) -> Any:
    if isinstance(value, dict):
        return {name: _array(one) for name, one in value.items()}
    if not hasattr(value, "shape"):
        raise DataError(
            f"dataset[{place}] gives a {type(value).__name__} as x, and a tensor or an array is needed (for pictures: "
            "transform=torchvision.transforms.ToTensor())"
        )
    return _array(value)


def _stacked(values: list[Any]) -> np.ndarray[Any, Any]:
    other = next((place for place, value in enumerate(values) if value.shape != values[0].shape), None)
    if other is not None:
        raise DataError(f"dataset[{other}] is {list(values[other].shape)} and dataset[0] {list(values[0].shape)}")
    return np.stack(values)


def _sha256(given: Given) -> str:
    digest = hashlib.sha256()
    x = sorted(given.x.items()) if isinstance(given.x, dict) else [("x", given.x)]
    for name, value in [*x, ("y", given.y), ("groups", given.groups), ("split", given.split)]:
        if value is not None:
            plain: np.ndarray[Any, Any] = np.ascontiguousarray(value)
            digest.update(f"{name} {plain.shape} {plain.dtype}".encode())
            digest.update(repr(plain.tolist()).encode() if plain.dtype.kind == "O" else plain.tobytes())
    return digest.hexdigest()
