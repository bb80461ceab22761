"""Tasks of one's own table: one row an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from pydantic import model_validator
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.options import STRICT
from raymeta.tasks.base import Goal
from raymeta.tasks.grouped.sorting import Encoded, Rows
from raymeta.tasks.grouped.source import Sourced
from raymeta.tasks.reader import Reader
from raymeta.tasks.rows import Row, as_json, require_columns
from raymeta.tasks.tables.columns import Columns, Missing, as_text, is_missing
from raymeta.tasks.tables.fitting import fitted


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tables(Sourced):
    """Rows of a CSV, TSV, JSON-lines or Parquet file.

    With `label` alone, classes are sampled into tasks. With `task` and `target`, each task (a patient, a shop, a
    country) is a regression of its own; with `task` and `label`, a classification whose labels all tasks share. All
    other columns are features: numbers less their mean over their deviation, categories as ones and zeros. What is
    needed for that comes from the training classes or tasks alone.
    """

    label: str | None = None
    """column of the class of a row"""
    task: str | None = None
    """column of the task that a row belongs to"""
    target: str | None = None
    """column of numbers to predict, in units of their deviation in training"""
    features: tuple[str, ...] = ()
    """columns that are inputs; all that have no other use unless given"""
    categorical: tuple[str, ...] = ()
    """columns of numbers that are categories"""
    ignore: tuple[str, ...] = ()
    """columns to leave out"""
    missing: Missing = "mean"
    """a missing value becomes the mean of the training rows, or no category; or `refuse`. A missing target, label or
    task is always refused"""
    split_column: str | None = None
    """column that says train, val or test, the same for all rows of a class or task"""

    @model_validator(mode="after")
    def _says_what_to_learn(self) -> Self:
        if (self.label is None) == (self.target is None):
            raise ValueError("give one of tasks.label (classes) and tasks.target (numbers to predict)")
        if self.target is not None and self.task is None:
            raise ValueError("tasks.target needs tasks.task, the column that says which task a row belongs to")
        return self

    @property
    def goal(self) -> Goal:  # type: ignore[override]
        return "classification" if self.target is None else "regression"

    @property
    def has_tasks(self) -> bool:
        return self.task is not None

    def rows(self) -> Rows:
        content = self.content("from_frame")
        named = [name for name in (self.label, self.task, self.target, self.split_column) if name is not None]
        require_columns(content, [*named, *self.features, *self.categorical, *self.ignore], self.where)
        for name in named:
            self._require_values(content, name)
        groups = [as_text(row[self.task or self.label or ""]) for row in content]
        labels = [as_text(row[self.label]) for row in content] if self.task and self.label else None
        splits = [as_text(row[self.split_column]) for row in content] if self.split_column else None
        return Rows(content, groups, labels, splits, self.where)

    def _require_values(self, rows: Sequence[Row], name: str) -> None:
        empty = next((number for number, row in enumerate(rows, 1) if is_missing(row[name])), None)
        if empty is not None:
            raise DataError(f"{self.where} row {empty}: it has no {name}: fill it in, or leave the row out")

    def fit(self, rows: Rows, train: list[int]) -> Columns:
        used = {self.label, self.task, self.target, self.split_column, *self.ignore}
        features = self.features or [name for name in rows.content[0] if name not in used]
        require_columns(rows.content, features, self.where)
        if not features:
            raise DataError(
                f"{self.where} has no columns besides {', '.join(filter(None, used))}: nothing to learn from"
            )
        return fitted([rows.content[p] for p in train], features, self.categorical, self.missing, self.target)

    def encode(self, rows: Rows, reader: Reader | None) -> Encoded:
        assert isinstance(reader, Columns)
        y = None
        if self.target is not None and reader.target is not None:
            targets = reader.scaled(rows.content, self.target, reader.target, self.where)
            y = np.array(targets, dtype=np.float32)[:, None]
        return Encoded(reader.array(rows.content, self.where), y)

    def raw(self, rows: Rows, places: list[int]) -> bytes:
        return as_json([rows.content[place] for place in places])

    def load_notes(self, rows: Rows, reader: Any) -> list[str]:
        names = [*reader.numbers, *reader.categories]
        missing = {name: sum(is_missing(row[name]) for row in rows.content) for name in names}
        told = ", ".join(f"{name} ({count})" for name, count in missing.items() if count)
        return [f"missing values, taken as the training mean or as no category: {told}"] if told else []
