"""Somebody's labelled examples: a folder with a sub-folder for each class, or a table of texts or rows with labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raymeta.errors import DataError
from raymeta.tasks.images.files import image_paths, subfolders
from raymeta.tasks.images.listing import image_suffixes
from raymeta.tasks.rows import rows_of_file

LABEL_COLUMNS = ("label", "class", "y", "target", "category")
"""Names by which the column of labels is found where it is not named."""


class Labelled(NamedTuple):
    """Examples as a reader takes them, what to call each, and their labels."""

    items: list[Any]
    names: list[str]
    labels: list[str]


def labelled_examples(source: Path, *, label_column: str | None = None, read: Collection[str] = ()) -> Labelled:
    """Of a folder of classes, or of a CSV, TSV or JSON-lines file. Raises `DataError` naming what is wrong there.

    Where nobody names the column of labels, it is one of `LABEL_COLUMNS`, or the only one that the model does not read
    (`read` are those that it does).
    """
    if source.is_dir():
        return _of_folder(source)
    if not source.exists():
        raise DataError(f"there is no {source}: give a folder with one sub-folder per class, or a table with labels")
    rows = rows_of_file(source)
    column = label_column or _column_of_labels(list(rows[0]), read)
    if column is None or column not in rows[0]:
        told = f"no column {label_column}" if label_column else "no column of labels"
        raise DataError(f"{source} has {told}: it has {', '.join(rows[0])}. Name it with --label-column")
    empty = [number for number, row in enumerate(rows, 1) if row.get(column) in (None, "")]
    if empty:
        raise DataError(f"{source}: example {empty[0]} has no {column}: give every example its label")
    items = [{name: value for name, value in row.items() if name != column} for row in rows]
    names = [f"{source.name}:{number}" for number in range(1, len(rows) + 1)]
    return Labelled(items, names, [str(row[column]) for row in rows])


def _column_of_labels(columns: Sequence[str], read: Collection[str]) -> str | None:
    named = [name for name in LABEL_COLUMNS if name in columns]
    others = [name for name in columns if name not in read] if read else []
    return named[0] if named else others[0] if len(others) == 1 else None


def _of_folder(folder: Path) -> Labelled:
    classes = {path.name: image_paths(path) for path in subfolders(folder)}
    if not classes:
        raise DataError(f"{folder} has no sub-folders: put the examples of each class into one of its own, by its name")
    empty = [name for name, files in classes.items() if not files]
    if empty:
        suffixes = " ".join(sorted(image_suffixes()))
        raise DataError(f"{folder / empty[0]} has no images ({suffixes}): add some, or move that folder elsewhere")
    pairs = [(file, name) for name, files in classes.items() for file in files]
    return Labelled([f for f, _ in pairs], [str(f.relative_to(folder)) for f, _ in pairs], [name for _, name in pairs])


def numbered(labels: Sequence[str]) -> tuple[list[str], list[int]]:
    """The classes in the order of their names, and each example's place in that."""
    classes = sorted(set(labels))
    places = {name: place for place, name in enumerate(classes)}
    return classes, [places[label] for label in labels]
