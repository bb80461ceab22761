"""What turns somebody's own examples into inputs of a model: the same steps as at training, as plain data."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from raymeta.tasks.inputs import Inputs, Shape


class Reader(ABC):
    """Frozen dataclasses whose fields JSON can hold, so that a model's folder says how its inputs are made."""

    kind: ClassVar[str]
    """its name in files"""
    item: ClassVar[str]
    """what one example is, for people: image file, text, row"""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table that it reads."""
        return ()

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Shape of one input."""

    @property
    def note(self) -> str | None:
        """What a person should know of how their examples become inputs."""
        return None

    def fitted(self, items: Sequence[Any]) -> Reader:
        """The reader for these support examples and what is asked of them: itself, unless it learns how from them."""
        return self

    @abstractmethod
    def read(self, items: Sequence[Any]) -> Inputs:
        """Inputs [n, *shape] of n examples. Raises `DataError` naming those that cannot be read."""

    def to_json(self) -> dict[str, Any]:
        """Its kind and its fields."""
        return {"kind": self.kind, **dataclasses.asdict(self)}  # type: ignore[call-overload]
