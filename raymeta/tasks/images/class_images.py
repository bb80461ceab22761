"""The images of one split, grouped by class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raymeta.keys import Split


class ClassImages(NamedTuple):
    """The images of one split, class after class: those of class c are `images[starts[c]:starts[c + 1]]`."""

    images: NDArray[np.uint8]  # [num_images, channels, height, width]
    starts: NDArray[np.int64]  # [num_classes + 1]
    names: list[str]  # [num_classes]
    marks: list[str] | None = None  # [num_classes] of the files' names and sizes, where there are files

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def select(self, wanted: NDArray[np.bool_]) -> ClassImages:
        """Only the classes that are `wanted` [num_classes]."""
        chosen = np.flatnonzero(wanted)
        marks = None if self.marks is None else [self.marks[i] for i in chosen]
        starts = np.concatenate([[0], np.cumsum(self.counts[chosen])]).astype(np.int64)
        images = self.images[np.repeat(wanted, self.counts)]
        return ClassImages(images, starts, [self.names[i] for i in chosen], marks)


Splits = dict[Split, ClassImages]
