"""Feature-wise linear modulation: a gain and a shift for each channel, made from a vector."""

from __future__ import annotations

from torch import Tensor


def film(h: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """h [n, C, *spatial] with a gain [C] and a shift [C] for each channel."""
    shape = (-1, *[1] * (h.dim() - 2))
    return h * gain.view(shape) + shift.view(shape)
