"""Data that a process has read, kept so that nothing is read twice."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Held(Generic[T]):
    """The data that were read last, by everything that determines them, so that task sets which differ only in way or
    shot share one copy. Data of files that were replaced meanwhile are let go, and so are those used longest ago."""

    MOST = 4

    def __init__(self) -> None:
        self._data: OrderedDict[tuple[object, ...], tuple[str, T]] = OrderedDict()

    def get(self, source: tuple[object, ...], stamp: str) -> T | None:
        """The data of `source` unless its files have another stamp; without a stamp none of them was replaced."""
        held = self._data.get(source)
        if held is None or (stamp and held[0] != stamp):
            return None
        self._data.move_to_end(source)
        return held[1]

    def keep(self, source: tuple[object, ...], stamp: str, data: T) -> None:
        self._data[source] = (stamp, data)
        self._data.move_to_end(source)
        while len(self._data) > self.MOST:
            self._data.popitem(last=False)

    def clear(self) -> None:
        self._data.clear()

    def __len__(self) -> int:
        return len(self._data)
