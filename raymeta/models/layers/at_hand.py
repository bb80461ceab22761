"""What layers ask for that is decided around the call: which inner step is at hand, who gets their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class AtHand(Generic[T]):
    """A value that is another one inside `being`."""

    def __init__(self, name: str, default: T) -> None:
        self._value: ContextVar[T] = ContextVar(name, default=default)
        self._traced = [default]
        """the value while a compiler reads the code, which cannot follow a ContextVar that is set"""

    def now(self) -> T:
        return self._traced[0] if torch.compiler.is_compiling() else self._value.get()

    @contextmanager
    def being(self, value: T) -> Iterator[None]:
        if torch.compiler.is_compiling():
            before, self._traced[0] = self._traced[0], value
            try:
                yield
            finally:
                self._traced[0] = before
            return
        token = self._value.set(value)
        try:
            yield
        finally:
            self._value.reset(token)
