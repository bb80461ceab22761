"""Reading image files into uint8 arrays."""

from __future__ import annotations

import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from raymeta.errors import DataError
from raymeta.system.reading import open_regular
from raymeta.tasks.images.class_images import ClassImages
from raymeta.tasks.images.greys import FULL_RANGE, has_deep_colour, is_deep, to_bytes
from raymeta.tasks.images.listing import image_suffixes
from raymeta.tasks.manifest import mark_of

SIDE_LIMIT = 84  # pixels; what few-shot papers use, and 60,000 colour images of it take 1.3 GB
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file it cannot decode."""
BROKEN_ARCHIVE = (
    *(*UNREADABLE, zipfile.BadZipFile, zlib.error, EOFError, LookupError),
    *(RuntimeError, TypeError, tokenize.TokenError),  # by damaged flags, a lone array, an array's damaged header
)
"""What reading images or arrays from a damaged zip archive can raise, found by flipping bits."""

Channels = Literal[1, 3]
Fit = Literal["crop", "squash"]


def subfolders(folder: Path) -> list[Path]:
    """Folders in `folder` in name order, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_paths(folder: Path) -> list[Path]:
    """Image files in `folder` (by suffix, not deeper) in name order, hidden ones left out."""
    wanted = image_suffixes()
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in wanted and not p.name.startswith("."))


def read_classes(
    classes: Mapping[str, Sequence[Path]],
    *,
    side: int,
    channels: Channels,
    fit: Fit,
    range_: int = FULL_RANGE,
    unreadable: dict[Path, str] | None = None,
) -> ClassImages:
    """All images of the classes, class after class in the given order, as [n, channels, side, side].

    Grey values of more than 8 bits lie in 0..`range_`. Raises `DataError` naming files that cannot be decoded; where
    `unreadable` is given, it receives them with the reason instead, and they are left out.
    """
    paths = [path for files in classes.values() for path in files]
    problems: dict[Path, str] | None = None if unreadable is None else {}
    images = read_pictures(paths, side=side, channels=channels, fit=fit, range_=range_, unreadable=problems)
    problems = problems or {}
    if unreadable is not None:
        unreadable |= problems
        images = images[[path not in problems for path in paths]] if problems else images
    kept = [[path for path in files if path not in problems] for files in classes.values()]
    starts = np.cumsum([0, *map(len, kept)], dtype=np.int64)
    marks = [mark_of((path.name, path.stat().st_size) for path in files) for files in kept]
    return ClassImages(images, starts, list(classes), marks)


def read_pictures(
    paths: Sequence[Path],
    *,
    side: int,
    channels: Channels,
    fit: Fit,
    range_: int = FULL_RANGE,
    unreadable: dict[Path, str] | None = None,
) -> NDArray[np.uint8]:
    """[n, channels, side, side] of the files; what cannot be read is as in `read_classes`, and its pixels are any."""
    images = np.empty((len(paths), channels, side, side), np.uint8)

    def decode(index: int, image: Image.Image) -> None:
        images[index] = _fitted(image, side=side, channels=channels, fit=fit, range_=range_)

    problems = for_each_file(paths, decode, go_on=unreadable is not None)
    if unreadable is not None:
        unreadable |= problems
    return images


def for_each_file(
    paths: Sequence[Path], do: Callable[[int, Image.Image], None], *, go_on: bool = False
) -> dict[Path, str]:
    """Call `do(index, image)` for every file, opened but not yet decoded; returns those that cannot be read.

    Threads share the work (Pillow decodes outside the interpreter's lock); nothing may depend on their order. Unless
    told to `go_on`, raises `DataError` naming the first files that cannot be read, when all have been tried.
    """

    def visit(index: int) -> str | None:
        try:
            with open_regular(paths[index]) as file, Image.open(file) as image:
                do(index, image)
        except UNREADABLE as error:
            return re.sub(r" (identify image file) <.*>", r" \1", str(error)) or type(error).__name__
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        told = list(pool.map(visit, range(len(paths))))
    problems = {path: problem for path, problem in zip(paths, told, strict=True) if problem is not None}
    if problems and not go_on:
        broken = [f"\n  {path}: {problem}" for path, problem in problems.items()]
        more = f"\n  and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise DataError(
            f"{len(broken)} of {len(paths)} image files cannot be read: write them anew, move them elsewhere, or "
            f"(tasks images) leave them out with tasks.skip_unreadable true:{''.join(broken[:5])}{more}"
        )
    return problems


class Headers(NamedTuple):
    """What the headers of image files say."""

    side: int  # the median of their shorter sides, at most 84
    channels: Channels  # 3 if any has colour
    deep: list[Path]  # greys of more than 8 bits
    deep_colour: list[Path]  # colours of more than 8 bits a channel
    unreadable: dict[Path, str]


def read_headers(paths: Sequence[Path], *, go_on: bool = False) -> Headers:
    """Look at all files without decoding them; raises `DataError` for unreadable ones unless told to `go_on`."""
    sides = np.zeros(len(paths), np.int64)
    coloured, deep, deep_colour = (np.zeros(len(paths), bool) for _ in range(3))

    def look(index: int, image: Image.Image) -> None:
        sides[index] = min(image.size)
        coloured[index] = not (image.mode in ("1", "L", "LA") or image.mode.startswith("I"))
        deep[index] = is_deep(image)
        deep_colour[index] = has_deep_colour(image)

    problems = for_each_file(paths, look, go_on=go_on)
    known = np.sort(sides[[path not in problems for path in paths]])
    side = min(int(known[len(known) // 2]), SIDE_LIMIT) if len(known) else SIDE_LIMIT
    greys, colours = ([paths[i] for i in np.flatnonzero(flags).tolist()] for flags in (deep, deep_colour))
    return Headers(side, 3 if coloured.any() else 1, greys, colours, problems)


def shape_of_files(paths: Sequence[Path]) -> tuple[int, Channels]:
    """Side and channels that suit the files: the median of their shorter sides, at most 84; 3 if any has colour."""
    headers = read_headers(paths)
    return headers.side, headers.channels


def _fitted(image: Image.Image, *, side: int, channels: Channels, fit: Fit, range_: int) -> NDArray[np.uint8]:
    """Decode to [channels, side, side] by Lanczos: the largest centred square ("crop"), or the whole ("squash")."""
    image = _plain(image, "RGB" if channels == 3 else "L", range_)
    width, height = image.size
    square = min(width, height)
    left, top = ((width - square) / 2, (height - square) / 2) if fit == "crop" else (0.0, 0.0)
    box = (left, top, width - left, top + square) if fit == "crop" else (0.0, 0.0, width, height)
    if (width, height) != (side, side):
        image = image.resize((side, side), Image.Resampling.LANCZOS, box=box)
    return np.asarray(image).reshape(side, side, channels).transpose(2, 0, 1)


def _plain(image: Image.Image, mode: str, range_: int) -> Image.Image:
    """Upright, and in 8 bits of `mode`, transparent parts becoming white.

    Pillow itself would clip 16-bit greys at 255 and show whatever colour lies under transparent pixels.
    """
    deep = is_deep(image)
    upright = ImageOps.exif_transpose(image)
    image = Image.fromarray(to_bytes(np.asarray(upright), range_)) if deep else upright
    if "A" in image.mode or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image.convert(mode)
