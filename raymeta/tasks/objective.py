"""Functions to be minimised, for learned optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Objective(NamedTuple):
    """A function of θ [size] that the support x [n, *feature] and y [n, d] of an episode decide."""

    size: int
    value: Callable[[Tensor, Tensor, Tensor], Tensor]
    """of θ, x and y"""


def squared_distance(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """‖xθ − y‖²."""
    return (x @ theta - y[:, 0]).square().sum()
