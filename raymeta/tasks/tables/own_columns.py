"""How rows of any table become inputs of a model that was trained on made-up tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.errors import DataError
from raymeta.options import STRICT
from raymeta.tasks.reader import Reader
from raymeta.tasks.rows import Row, require_columns
from raymeta.tasks.tables.columns import Columns
from raymeta.tasks.tables.fitting import fitted
from raymeta.tree import FloatArray

SMALL = 1e-9
"""Deviations below it are none: such directions become 0."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OwnColumns(Reader):
    """[n, features]: whatever columns a support set has, by its own means, deviations and categories.

    Where they are fewer numbers than `features`, the rest are 0, as in made-up tables with fewer features. Where they
    are more, the inputs are the principal components of largest variance in the support set, each over its deviation.
    """

    kind: ClassVar[str] = "own columns"
    item: ClassVar[str] = "row"

    features: PositiveInt
    """inputs of the model"""
    table: Columns | None = None
    """how the support set's columns become numbers; None before there is one"""
    components: list[list[float]] | None = None
    """weights of all numbers in each component [features, d], where there are more than `features`"""

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.table is None else self.table.columns

    @property
    def shape(self) -> tuple[int]:
        return (self.features,)

    @property
    def note(self) -> str | None:
        if self.table is None or self.components is None:
            return None
        (numbers,) = self.table.shape
        return (
            f"{numbers} numbers of a row are more than the {self.features} that the model reads: it reads their "
            f"{self.features} principal components of largest variance. Leave out columns that say little"
        )

    def fitted(self, items: Sequence[Row]) -> OwnColumns:
        """Raises `DataError` for a table without columns besides its labels, or one that cannot be read."""
        names = list(items[0]) if items else []
        if not names:
            raise DataError("the support set has no columns besides its labels: nothing to learn from")
        require_columns(items, names, "the support set")
        table = fitted(items, names, (), "mean", None)
        x = table.array(items).astype(np.float64)
        directions = principal(x, self.features).tolist() if x.shape[1] > self.features else None
        return dataclasses.replace(self, table=table, components=directions)

    def read(self, items: Sequence[Row]) -> Tensor:
        """Raises `DataError` naming the first row and column that cannot be read."""
        if self.table is None:
            raise DataError("the columns of a table are known from its support set: adapt the model to one first")
        x = self.table.array(items).astype(np.float64)
        if self.components is not None:
            x = x @ np.array(self.components).T
        return torch.from_numpy(np.pad(x, ((0, 0), (0, self.features - x.shape[1]))).astype(np.float32))


def principal(x: FloatArray, count: int) -> FloatArray:
    """Directions [count, d] of largest variance of x [n, d] of mean 0, on which it has deviation 1; signs are fixed."""
    _, values, directions = np.linalg.svd(x, full_matrices=False)
    deviations = values[:count] / np.sqrt(len(x))
    found = np.zeros((count, x.shape[1]))
    for place, (deviation, direction) in enumerate(zip(deviations, directions, strict=False)):
        if deviation > SMALL:
            found[place] = direction * np.sign(direction[np.abs(direction).argmax()]) / deviation
    return found
