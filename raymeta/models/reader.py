"""A small network by which methods read examples for themselves, apart from the model."""

from __future__ import annotations

import math

from torch import nn

from raymeta.models.conv4 import Conv4
from raymeta.models.shapes import require_one, require_outputs
from raymeta.tasks.inputs import Shape

WIDTH = 32
"""Features that are read of an image."""


def reader_of(input_shape: Shape) -> tuple[nn.Module, int]:
    """The network, and its number of features: convolutions without norm for images, else the inputs themselves."""
    shape = require_one("this method", input_shape)
    if len(shape) != 3:
        return nn.Flatten(), math.prod(shape)
    network = Conv4(width=WIDTH, norm="none").build(shape, None)
    return network, require_outputs("the reader", network, shape, None).shape[1]
