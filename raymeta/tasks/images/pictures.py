"""How one image file becomes the input that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.options import STRICT
from raymeta.tasks.images.files import Channels, Fit, read_pictures
from raymeta.tasks.images.greys import FULL_RANGE
from raymeta.tasks.reader import Reader


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pictures(Reader):
    """[channels, side, side] in [0, 1] of the largest centred square of a picture, or of the whole."""

    kind: ClassVar[str] = "pictures"
    item: ClassVar[str] = "image file"

    side: PositiveInt
    channels: Channels
    fit: Fit = "crop"
    """`crop` takes the largest centred square, `squash` the whole"""
    inverted: bool = False
    """whether dark strokes on light paper become bright ones on black"""
    range: PositiveInt = FULL_RANGE
    """the value of white in greys of more than 8 bits"""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.side, self.side

    def read(self, items: Sequence[Path]) -> Tensor:
        """Raises `DataError` naming the files that cannot be read."""
        pixels = read_pictures(items, side=self.side, channels=self.channels, fit=self.fit, range_=self.range)
        pixels = 255 - pixels if self.inverted else pixels
        return torch.from_numpy(np.divide(pixels, 255, dtype=np.float32))
