"""What all ways from a text to ids share: texts of rows, and ids filled up to one length, with a mask."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from raymeta.errors import DataError
from raymeta.tasks.reader import Reader


class TokenReader(Reader):
    """Texts to {"tokens": ids int64 [n, length], "mask": truth values [n, length]}."""

    item: ClassVar[str] = "text"

    column: str
    length: int

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """All ids are below it."""

    @property
    def padding(self) -> int:
        """The id behind the end of a text."""
        return 0

    @abstractmethod
    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Of any length."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def shape(self) -> dict[str, tuple[int, ...]]:
        return {"tokens": (self.length,), "mask": (self.length,)}

    def read(self, items: Sequence[Any]) -> dict[str, Tensor]:
        """Texts, or rows with a column of them. Raises `DataError` naming a row without a text."""
        arrays = self.arrays([text_of(item, self.column, f"row {n}") for n, item in enumerate(items, 1)])
        return {name: torch.from_numpy(value) for name, value in arrays.items()}

    def arrays(self, texts: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        return padded(self.ids(texts), self.length, self.padding)


def text_of(item: Any, column: str, told: str) -> str:
    """The text of a row. Raises `DataError` where it has none."""
    value = item.get(column) if isinstance(item, dict) else item
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{told}: it has no text{f' in the column {column}' if isinstance(item, dict) else ''}")
    return value


def padded(ids: Sequence[Sequence[int]], length: int, padding: int) -> dict[str, np.ndarray[Any, Any]]:
    """Ids [n, length], filled up with `padding` or cut, and which of them are ids."""
    tokens = np.full((len(ids), length), padding, dtype=np.int64)
    mask = np.zeros((len(ids), length), dtype=np.bool_)
    for row, own in enumerate(ids):
        kept = own[:length]
        tokens[row, : len(kept)], mask[row, : len(kept)] = kept, True
    return {"tokens": tokens, "mask": mask}
