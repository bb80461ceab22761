"""Which inner step a layer is computed in, decided around the call as whose statistics batch norm uses is."""

from __future__ import annotations

from contextlib import AbstractContextManager

from raymeta.models.layers.at_hand import AtHand

_STEP = AtHand("inner step", 0)


def inner_step(step: int) -> AbstractContextManager[None]:
    """Inside, inner step `step` is at hand, counted from 0."""
    return _STEP.being(step)


def current_inner_step() -> int:
    """The inner step at hand; 0 outside of an inner loop. A query is predicted in the last step before it."""
    return _STEP.now()
