"""How one row of a table becomes the input that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.errors import DataError
from raymeta.options import STRICT
from raymeta.tasks.reader import Reader
from raymeta.tasks.rows import Row

Missing = Literal["mean", "refuse"]
MISSING = ("", "na", "n/a", "nan", "null")
"""Values that stand for none, in small letters."""
MOST_CATEGORIES = 1000
"""Different values of a categorical column; one with more is no category but a name."""
MOST = float(np.finfo(np.float32).max)
"""The largest input of a network."""
Scale = tuple[Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(gt=0, allow_inf_nan=False)]]
"""Mean and standard deviation."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Columns(Reader):
    """[n, d]: numbers less their mean over their deviation, then ones and zeros for each category."""

    kind: ClassVar[str] = "columns"
    item: ClassVar[str] = "row"

    numbers: dict[str, Scale]
    """mean and standard deviation in the training tasks, by column"""
    categories: dict[str, Annotated[list[str], Field(max_length=MOST_CATEGORIES)]]
    """values in the training tasks, by column; another value is none of them, all zeros"""
    missing: Missing = "mean"
    """a missing value becomes the mean, or no category; or it is refused"""
    target: Scale | None = None
    """of a regression's target: what its values are less and over"""

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.numbers, *self.categories)

    @property
    def shape(self) -> tuple[int]:
        return (len(self.numbers) + sum(map(len, self.categories.values())),)

    def read(self, items: Sequence[Row]) -> Tensor:
        """Raises `DataError` naming the first row and column that cannot be read."""
        return torch.from_numpy(self.array(items))

    def array(self, rows: Sequence[Row], where: str = "") -> NDArray[np.float32]:
        x = np.zeros((len(rows), *self.shape), dtype=np.float32)
        for place, name in enumerate(self.numbers):
            x[:, place] = self.scaled(rows, name, self.numbers[name], where)
        start = len(self.numbers)
        for name, values in self.categories.items():
            places = {value: start + place for place, value in enumerate(values)}
            for row, value in enumerate(self._present(rows, name, where)):
                if value is not None and (column := places.get(as_text(value))) is not None:
                    x[row, column] = 1
            start += len(values)
        return x

    def scaled(self, rows: Sequence[Row], name: str, scale: Scale, where: str = "") -> list[float]:
        """A column of numbers in the scale of training; missing ones are 0, its mean."""
        mean, deviation = scale
        values = self._present(rows, name, where)
        found = [None if v is None else number(v, _told(where, row, name)) for row, v in enumerate(values)]
        scaled = [0.0 if v is None else (v - mean) / deviation for v in found]
        for row, v in enumerate(scaled):
            if abs(v) > MOST:
                raise DataError(f"{_told(where, row, name)} is {found[row]}, too far from the {mean:g} that is usual")
        return scaled

    def _present(self, rows: Sequence[Row], name: str, where: str) -> Iterable[Any]:
        for row, values in enumerate(rows):
            if name not in values:
                raise DataError(f"{_told(where, row, name)} is not there: the row has {', '.join(map(str, values))}")
            value = None if is_missing(values[name]) else values[name]
            if value is None and self.missing == "refuse":
                raise DataError(
                    f"{_told(where, row, name)} is missing: fill it in, leave the row out, or train with "
                    "tasks.missing mean"
                )
            yield value


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or as_text(value).lower() in MISSING


def as_text(value: Any) -> str:
    """A category as it stands in a file of text: truth values and whole numbers alike from any source."""
    return str(value).strip()


def number(value: Any, told: str) -> float:
    """Raises `DataError` for what is no finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{told} is {str(value)[:40]!r}, which is no number") from error
    if not math.isfinite(found):
        raise DataError(f"{told} is {found}, and finite numbers are needed")
    return found


def scale_of(values: Sequence[float]) -> Scale:
    """Mean and standard deviation, 1 where all values are equal, by exact sums: the same on any machine."""
    mean = math.fsum(values) / max(len(values), 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(len(values), 1)
    return mean, math.sqrt(variance) or 1.0


def _told(where: str, row: int, name: str) -> str:
    return f"{f'{where} ' if where else ''}row {row + 1}: column {name}"
