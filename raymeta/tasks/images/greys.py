"""Grey images of more than 8 bits: which range their values have, and how they become bytes.

16-bit files often hold 10, 12 or 14 bits. Where the file says so, or nothing in the whole data set is brighter, that
is the range; else a folder of 12-bit scans would be sixteen shades of nearly black.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = (8, 10, 12, 14, 16)
FULL_RANGE = 2**16 - 1


def is_deep(image: Image.Image) -> bool:
    """Whether the pixels of an open file are greys of more than 8 bits.

    Raises `ValueError` where they have no agreed range.
    """
    if image.mode.startswith("I;16"):
        return True
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits in 32; Pillow scales PPM to all of them
        return True
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"pixels of type {image.mode} have no agreed range; convert the file to 8 bits")
    return False


def has_deep_colour(image: Image.Image) -> bool:
    """Whether Pillow will drop bits of an open file's colours: it holds 8 of a channel's 16."""
    tiles: Sequence[Sequence[object]] = getattr(image, "tile", ())
    return image.mode.startswith("RGB") and any("16" in str(tile[3]) for tile in tiles)


def told_bits(image: Image.Image) -> int:
    """Bits that the file says it has; 0 where it only says how they are stored."""
    if image.format == "TIFF":
        bits = int(image.tag_v2.get(258, (16,))[0])  # type: ignore[attr-defined]  # BitsPerSample
        return bits if 8 < bits < 16 else 0
    return 16 if image.format == "PPM" else 0


def brightest(image: Image.Image) -> int:
    """The largest value of an open file, or that of the range that the file tells."""
    told = told_bits(image)
    return 2**told - 1 if told else int(np.asarray(image).max(initial=0))


def range_of(values: Sequence[int]) -> int:
    """The largest value of the fewest bits, of 8, 10, 12, 14 or 16, that hold all of `values`."""
    highest = max(values, default=FULL_RANGE)
    return next((2**bits - 1 for bits in BITS if highest < 2**bits), FULL_RANGE)


def to_bytes(greys: NDArray[np.integer], range_: int) -> NDArray[np.uint8]:
    """Values of 0..`range_` as the nearest of 0..255; above it there is only white."""
    wide = np.minimum(greys.astype(np.int64), range_)
    scaled: NDArray[np.uint8] = ((wide * 510 + range_) // (2 * range_)).astype(np.uint8)
    return scaled
