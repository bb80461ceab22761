"""What layers ask for that is decided around the call: which inner step is at hand, who gets their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

T = TypeVar("T")


class AtHand(Generic[T]):
    """A value that is another one inside `being`."""

    def __init__(self, name: str, default: T) -> None:
        self._value: ContextVar[T] = ContextVar(name, default=default)

    def now(self) -> T:
        return self._value.get()

    @contextmanager
    def being(self, value: T) -> Iterator[None]:
        token = self._value.set(value)
        try:
            yield
        finally:
            self._value.reset(token)
