"""Which statistics batch norm uses, decided around a call rather than inside the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from torch import Tensor


class ReferenceRows(NamedTuple):
    """The first `rows` of a batch `of` so many examples, where that is known."""

    rows: int
    of: int | None = None


REFERENCE_ROWS: ContextVar[ReferenceRows | None] = ContextVar("reference_rows", default=None)
USE_RUNNING: ContextVar[bool] = ContextVar("use_running", default=False)
COLLECTED: ContextVar[dict[str, Tensor] | None] = ContextVar("collected", default=None)


@contextmanager
def reference_rows(n: int, of: int | None = None) -> Iterator[None]:
    """Inside, batch norm takes mean and biased variance from the first n rows and normalises all rows with them.

    Rows must stay the first dimension of every batch norm's input. Where a model makes several rows of each of the
    batch's examples, one example after another, `of` is the number of examples. Raises ValueError where n < 1.
    """
    if n < 1:
        raise ValueError(f"reference_rows needs at least one row, not {n}")
    with _setting(REFERENCE_ROWS, ReferenceRows(n, of)):
        yield


@contextmanager
def running_statistics() -> Iterator[None]:
    """Inside, every batch norm that has running statistics uses them; one without uses those of its batch."""
    with _setting(USE_RUNNING, True):
        yield


@contextmanager
def collect_statistics() -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that fills with the statistics each batch norm with running buffers used, detached.

    Keys are the buffers' qualified names ("features.1.running_mean"), values [C]: the batch mean and the unbiased
    variance, or the running ones where those were used. The last call of a layer counts.
    """
    statistics: dict[str, Tensor] = {}
    with _setting(COLLECTED, statistics):
        yield statistics


@contextmanager
def _setting(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
