"""Tasks of one's own arrays: signals, precomputed embeddings, anything of one shape."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.options import STRICT
from raymeta.system.reading import first_line, open_regular
from raymeta.tasks.base import Goal
from raymeta.tasks.grouped.pools import Array, Arrays, of_model_types, taken
from raymeta.tasks.grouped.sorting import Encoded, Rows
from raymeta.tasks.grouped.source import Sourced
from raymeta.tasks.reader import Reader

Kind = Literal["classes", "labels", "targets"]


class Given(NamedTuple):
    """Examples as arrays whose first dimensions agree."""

    x: Arrays
    y: Array
    groups: Array | None = None
    split: Array | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ArrayTasks(Sourced):
    """An `.npz` with x [n, *feature] and y [n], and perhaps groups [n] and split [n]; x may be several, `x.NAME`.

    Inputs are taken as they are: floats, int64 ids or truth values, without normalisation.
    """

    unit: ClassVar[str] = "examples"

    kind: Kind = "classes"
    """what y is: `classes` that are sampled into tasks; `labels` that the tasks named by groups share; numbers, the
    `targets` of these tasks"""

    @property
    def goal(self) -> Goal:  # type: ignore[override]
        return "regression" if self.kind == "targets" else "classification"

    @property
    def has_tasks(self) -> bool:
        return self.kind != "classes"

    def read(self, path: Path) -> Given:
        return read_npz(path)

    def rows(self) -> Rows:
        given = self.content("from_arrays")
        _require_alike(given, self.where)
        y = np.asarray(given.y)
        if self.has_tasks and given.groups is None:
            raise DataError(
                f"{self.where} has no groups, which say what task an example is of (tasks.kind {self.kind})"
            )
        if not self.has_tasks and y.dtype.kind == "f":
            raise DataError(f"{self.where}: y holds floats, and classes are needed; for targets say tasks.kind targets")
        labels = None if self.kind == "targets" else _texts(y)
        groups = _texts(given.groups) if self.has_tasks else labels
        splits = None if given.split is None else _texts(given.split)
        return Rows(given, groups or [], labels if self.kind == "labels" else None, splits, self.where)

    def fit(self, rows: Rows, train: list[int]) -> Reader | None:
        return None

    def encode(self, rows: Rows, reader: Reader | None) -> Encoded:
        given: Given = rows.content
        if isinstance(given.x, dict):
            x: Arrays = {name: _sound(value, f"{self.where}: x.{name}") for name, value in sorted(given.x.items())}
        else:
            x = _sound(given.x, f"{self.where}: x")
        if self.kind != "targets":
            return Encoded(x)
        y = _sound(np.asarray(given.y, dtype=np.float32), f"{self.where}: y")
        return Encoded(x, y.astype(np.float32).reshape(len(y), -1))

    def raw(self, rows: Rows, places: list[int]) -> bytes:
        given: Given = rows.content
        chosen = taken(given.x, np.array(places))
        values = [chosen[name] for name in sorted(chosen)] if isinstance(chosen, dict) else [chosen]
        y = np.asarray(given.y)[places] if self.has_tasks else np.zeros(0)
        return b"".join(np.ascontiguousarray(value).tobytes() for value in [*values, y])


def read_npz(path: Path) -> Given:
    """Nothing is unpickled. Raises `DataError` for a file that is none, or lacks x or y."""
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as .npz: {first_line(error)}") from error
    several = {name.removeprefix("x."): value for name, value in arrays.items() if name.startswith("x.")}
    if ("x" in arrays) == bool(several) or "y" not in arrays:
        raise DataError(f"{path} has {', '.join(arrays)}: x (or x.NAME for several inputs) and y are needed")
    return Given(several or arrays["x"], arrays["y"], arrays.get("groups"), arrays.get("split"))


def _require_alike(given: Given, where: str) -> None:
    count = len(given.y)
    x: dict[str, Any] = {f"x.{n}": v for n, v in given.x.items()} if isinstance(given.x, dict) else {"x": given.x}
    for name, value in {**x, "groups": given.groups, "split": given.split}.items():
        if value is not None and len(value) != count:
            raise DataError(f"{where}: {name} has {len(value)} examples and y {count}: give one for each")


def _sound(value: Array, name: str) -> Array:
    array = of_model_types(value, name)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))[0])
        raise DataError(f"{name} row {row + 1} holds NaN or infinity: fill it in, or leave it out")
    return array


def _texts(values: Any) -> list[str]:
    return [str(value) for value in np.asarray(values).tolist()]
