"""Reading image files into uint8 arrays, and where data lies when no folder is given."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import AfterValidator, BeforeValidator

from raymeta.errors import DataError
from raymeta.reading import open_regular
from raymeta.tasks.image_classes import ClassImages

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
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

Folder = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, PurePath) else value),
    AfterValidator(lambda value: str(Path(value).expanduser().absolute())),
]
"""A folder in the configuration: text, or a `Path` in Python; absolute, since workers and resumed runs may start in
another directory."""


def data_folder(root: str | None, name: str) -> Path:
    """`root`, or where data called `name` lies by default: `$RAYMETA_DATA/name`, else `~/.cache/raymeta/name`."""
    if root is not None:
        return Path(root).expanduser()
    return Path(os.environ.get("RAYMETA_DATA", "~/.cache/raymeta")).expanduser() / name


def subfolders(folder: Path) -> list[Path]:
    """Folders in `folder` in name order, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_paths(folder: Path) -> list[Path]:
    """Image files in `folder` (by suffix, not deeper) in name order, hidden ones left out."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def read_classes(classes: Mapping[str, Sequence[Path]], *, side: int, channels: Channels, fit: Fit) -> ClassImages:
    """All images of the classes, class after class in the given order, as [n, channels, side, side].

    Raises `DataError` naming files that cannot be decoded.
    """
    paths = [path for files in classes.values() for path in files]
    images = np.empty((len(paths), channels, side, side), np.uint8)

    def decode(index: int, image: Image.Image) -> None:
        images[index] = _fitted(image, side=side, channels=channels, fit=fit)

    for_each_file(paths, decode)
    starts = np.cumsum([0, *(len(files) for files in classes.values())], dtype=np.int64)
    return ClassImages(images, starts, list(classes))


def for_each_file(paths: Sequence[Path], do: Callable[[int, Image.Image], None]) -> None:
    """Call `do(index, image)` for every file, opened but not yet decoded.

    Threads share the work (Pillow decodes outside the interpreter's lock); nothing may depend on their order. Raises
    `DataError` naming the first files that cannot be read, when all have been tried.
    """

    def visit(index: int) -> str | None:
        try:
            with open_regular(paths[index]) as file, Image.open(file) as image:
                do(index, image)
        except UNREADABLE as error:
            return str(error) or type(error).__name__
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        problems = list(pool.map(visit, range(len(paths))))
    broken = [f"\n  {path}: {problem}" for path, problem in zip(paths, problems, strict=True) if problem is not None]
    if broken:
        more = f"\n  and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise DataError(
            f"{len(broken)} of {len(paths)} image files cannot be read: remove them or write them anew:"
            f"{''.join(broken[:5])}{more}"
        )


def shape_of_files(paths: Sequence[Path]) -> tuple[int, Channels]:
    """Side and channels that suit the files: the median of their shorter sides, at most 84; 3 if any has colour."""
    sides = np.zeros(len(paths), np.int64)
    coloured = np.zeros(len(paths), bool)

    def look(index: int, image: Image.Image) -> None:
        sides[index] = min(image.size)
        coloured[index] = not (image.mode in ("1", "L", "LA") or image.mode.startswith("I"))

    for_each_file(paths, look)
    return min(int(np.sort(sides)[len(sides) // 2]), SIDE_LIMIT), 3 if coloured.any() else 1


def _fitted(image: Image.Image, *, side: int, channels: Channels, fit: Fit) -> NDArray[np.uint8]:
    """Decode to [channels, side, side] by Lanczos: the largest centred square ("crop"), or the whole ("squash")."""
    image = _plain(ImageOps.exif_transpose(image), "RGB" if channels == 3 else "L")
    width, height = image.size
    square = min(width, height)
    left, top = ((width - square) / 2, (height - square) / 2) if fit == "crop" else (0.0, 0.0)
    box = (left, top, width - left, top + square) if fit == "crop" else (0.0, 0.0, width, height)
    if (width, height) != (side, side):
        image = image.resize((side, side), Image.Resampling.LANCZOS, box=box)
    return np.asarray(image).reshape(side, side, channels).transpose(2, 0, 1)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Convert to 8 bits of `mode`, transparent parts becoming white.

    Pillow itself would clip 16-bit greys at 255 and show whatever colour lies under transparent pixels.
    """
    if image.mode == "I;16" or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"pixels of type {image.mode} have no agreed range; convert the file to 8 bits")
    if "A" in image.mode or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image.convert(mode)
