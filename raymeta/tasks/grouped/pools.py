"""The examples of one split, grouped, and how a task's examples are drawn of them."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from raymeta.errors import DataError
from raymeta.keys import Split
from raymeta.tasks.draws import distinct
from raymeta.tasks.inputs import Shape
from raymeta.tasks.reader import Reader

Array: TypeAlias = NDArray[np.generic]
Arrays: TypeAlias = Array | dict[str, Array]


class Pool(NamedTuple):
    """Of one split, cell after cell: those of cell c are `[starts[c]:starts[c + 1]]` of every array.

    A cell is a group, or one label of a group where tasks have labels of their own: cell = group · labels + label.
    """

    x: Arrays  # [n, *feature] each
    y: NDArray[np.float32] | None  # [n, d] targets of regression
    starts: NDArray[np.int64]  # [num_groups * labels + 1]
    names: list[str]  # [num_groups]
    marks: list[str]  # [num_groups] of the examples as they were given

    def counts(self) -> NDArray[np.int64]:
        """Examples of each cell."""
        return np.diff(self.starts)

    def examples(self) -> NDArray[np.int64]:
        """Examples of each group."""
        cells = self.counts()
        return cells.reshape(len(self.names), -1).sum(1) if self.names else cells

    def draw(self, u: NDArray[np.float64], groups: int, labels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For tasks of `groups` groups: which ones [T, groups], and rows [T, groups * labels, each], from uniforms."""
        u_groups, u_rows = u[:, : 2 * groups], u[:, 2 * groups :]
        chosen = distinct(u_groups, np.full(len(u), len(self.names)))
        cells = (chosen[:, :, None] * labels + np.arange(labels)).reshape(len(u), -1)
        each = u_rows.shape[1] // cells.shape[1]
        picks = distinct(u_rows.reshape(-1, each), self.counts()[cells].ravel())
        return chosen, self.starts[cells][..., None] + picks.reshape(*cells.shape, each // 2)


class Loaded(NamedTuple):
    """All that was read: of each split its pool, how examples become inputs, and what a person should know."""

    splits: dict[Split, Pool]
    labels: tuple[str, ...]
    """that all tasks share; none where classes are sampled, and in regression"""
    reader: Reader | None
    notes: tuple[str, ...]


def shape_of_arrays(x: Arrays) -> Shape:
    """Of one example."""
    if isinstance(x, dict):
        return {name: tuple(value.shape[1:]) for name, value in x.items()}
    return tuple(x.shape[1:])


def taken(x: Arrays, rows: NDArray[np.int64]) -> Arrays:
    """The examples in these places."""
    return {name: value[rows] for name, value in x.items()} if isinstance(x, dict) else x[rows]


def of_model_types(x: object, name: str) -> Array:
    """Floats as float32, integers as int64, truth values as they are. Raises `DataError` for other arrays."""
    array = np.asarray(x)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype == np.uint8:
        raise DataError(f"{name} holds bytes (uint8): divide pictures by 255, or make ids int64")
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "b":
        return array
    raise DataError(f"{name} holds {array.dtype}: give numbers or truth values")
