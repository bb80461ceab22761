"""Which inner step a layer is computed in, decided around the call as whose statistics batch norm uses is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_STEP: ContextVar[int] = ContextVar("inner step", default=0)
_TRACED = [0]
"""The step while a compiler reads the code, which cannot follow a ContextVar that is set."""


@contextmanager
def inner_step(step: int) -> Iterator[None]:
    """Inside, inner step `step` is at hand, counted from 0."""
    if torch.compiler.is_compiling():
        before, _TRACED[0] = _TRACED[0], step
        try:
            yield
        finally:
            _TRACED[0] = before
        return
    token = _STEP.set(step)
    try:
        yield
    finally:
        _STEP.reset(token)


def current_inner_step() -> int:
    """The inner step at hand; 0 outside of an inner loop. A query is predicted in the last step before it."""
    return _TRACED[0] if torch.compiler.is_compiling() else _STEP.get()
