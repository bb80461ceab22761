"""Training images that are never twice the same: mirrored, shifted, in other colours, as the task's key says.

Shape suffixes: N images, C channels, H height, W width. Everything is whole numbers or one operation an element, so an
image becomes the same whatever others are changed beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, model_validator
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import Split, TaskKey, uniforms
from raymeta.options import STRICT
from raymeta.tasks.images.base import ImageTaskSet

Images = NDArray[np.uint8]  # [N, C, H, W]
Reals = NDArray[np.float64]
DRAWS = 6
"""Uniform numbers of an image: mirrored or not, down, right, brightness, contrast, saturation. All are drawn whichever
are used, so that an option does not change what another one does."""
_LUMA = (299, 587, 114)  # thousandths of red, green and blue in a grey (ITU-R BT.601)


class Colours(NamedTuple):
    """Factors of each image [N]; all 1 leave it as it is."""

    brightness: Reals
    contrast: Reals
    saturation: Reals


def mirrored(x: Images, which: NDArray[np.bool_]) -> Images:
    """The images that `which` [N] names, left to right; done twice, they are as before."""
    return np.where(which[:, None, None, None], x[..., ::-1], x)


def shifted(x: Images, down: NDArray[np.int64], right: NDArray[np.int64]) -> Images:
    """Each image moved by so many pixels [N], fewer than its side; what comes in at a border is its mirror image."""
    room = [int(np.abs(by).max(initial=0)) for by in (down, right)]
    wide = np.pad(x, [(0, 0), (0, 0), *((pixels, pixels) for pixels in room)], mode="reflect")
    windows = sliding_window_view(wide, x.shape[2:], axis=(2, 3))
    found: Images = windows[np.arange(len(x)), :, room[0] - down, room[1] - right]
    return found


def recoloured(x: Images, by: Colours) -> Images:
    """Images of 3 channels with other brightness, contrast and saturation.

    b (s (c x + (1 − c) m) + (1 − s) (c g + (1 − c) m)), where g is the grey of a pixel and m the mean grey of the
    image: contrast about m, then saturation about the grey, then brightness.
    """
    grey = np.einsum("nchw,c->nhw", x, np.array(_LUMA, np.int32), dtype=np.int32)  # exact
    mean = grey.sum((1, 2), dtype=np.int64) / (1000 * grey.shape[1] * grey.shape[2])
    b, c, s = by
    factors = (b * s * c, b * (1 - s) * c / 1000, b * (1 - c) * mean)
    of_x, of_grey, rest = (factor.astype(np.float32)[:, None, None, None] for factor in factors)
    changed = np.multiply(x, of_x, dtype=np.float32)
    changed += np.multiply(grey[:, None], of_grey, dtype=np.float32) + rest
    found: Images = np.rint(np.clip(changed, 0, 255)).astype(np.uint8)
    return found


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentedImages(ImageTaskSet):
    """Images of which each one in a training episode may be mirrored, shifted and recoloured, by draws of its own.

    What is drawn follows from the task's key. The classes and images of an episode are those without augmentation, and
    validation and test see the images as they are.
    """

    train_flip: bool = False
    """mirror every other training image, left to right"""
    train_crop: NonNegativeInt = 0
    """shift each training image by up to so many pixels, as by cropping it from a mirrored border of that width"""
    train_colour: float = Field(default=0.0, ge=0, lt=1)
    """change brightness, contrast and saturation of each training image by factors from 1 - this to 1 + this"""

    @model_validator(mode="after")
    def _greys_have_no_colour(self) -> AugmentedImages:
        if self.train_colour and getattr(self, "channels", None) == 1:
            raise ValueError("train_colour changes colours, and channels is 1: leave one of them out")
        return self

    @property
    def augments(self) -> bool:
        return bool(self.train_flip or self.train_crop or self.train_colour)

    def changed(self, x: Images, keys: Sequence[TaskKey]) -> Images:
        """Images of training episodes [T, ..., C, H, W], each by its own draws of its task's key."""
        if keys[0].split != "train" or not self.augments:
            return x
        flat = x.reshape(-1, *x.shape[-3:])
        u = uniforms(keys, DRAWS * (len(flat) // len(keys)), "augmentation").reshape(-1, DRAWS).T
        if self.train_flip:
            flat = mirrored(flat, u[0] < 0.5)
        if self.train_crop:
            down, right = (u[1:3] * (2 * self.train_crop + 1)).astype(np.int64) - self.train_crop
            flat = shifted(flat, down, right)
        if self.train_colour:
            flat = recoloured(flat, Colours(*(1 + self.train_colour * (2 * u[3:] - 1))))
        return flat.reshape(x.shape)

    def drawn_from(self, split: Split) -> object:
        drawn = super().drawn_from(split)
        if split != "train" or not self.augments:
            return drawn
        return [drawn, self.train_flip, self.train_crop, self.train_colour]

    def _require(self, splits: Sequence[Split]) -> None:
        super()._require(splits)
        channels, *sides = self.splits["train"].images.shape[1:]
        if self.train_colour and channels != 3:
            raise DataError(
                f"tasks.train_colour {self.train_colour:g} changes colours, but the images have {channels} "
                f"channel{'s' * (channels != 1)}: leave it out, or read them as colour with tasks.channels 3"
            )
        if self.train_crop >= min(sides):
            raise DataError(
                f"tasks.train_crop {self.train_crop} is no smaller than the images' side of {min(sides)} pixels: "
                "lower it (an eighth of the side is usual)"
            )
