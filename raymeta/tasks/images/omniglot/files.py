"""The files Omniglot comes in: Lake's tree of PNG files, and the same bits packed into one file.

Both are read into the same bits, so the images that follow are equal whichever form is on the disk.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raymeta.errors import DataError, EnvironmentProblem
from raymeta.keys import SPLITS
from raymeta.system.files import write_whole
from raymeta.system.outputs import require_regular
from raymeta.system.reading import open_regular
from raymeta.tasks.images.files import BROKEN_ARCHIVE, for_each_file, image_paths, subfolders
from raymeta.tasks.images.splits import ClassSplits, published

PACKED = "omniglot_bits.npz"
SIDE = 105
DRAWERS = 20
_ROW_BYTES = (SIDE * SIDE + 7) // 8
_SETS = ("images_background", "images_evaluation")
_REMEDY = (
    "Get it with `raymeta omniglot download FOLDER` (needs raymeta[vision] and the internet) and give "
    "--tasks.root FOLDER; `--tasks glyphs` needs no data"
)


class Drawings(NamedTuple):
    """Drawings of C characters by the drawers 01..20, bit 1 = ink."""

    bits: NDArray[np.uint8]  # [C, 20, 1379]: each image's 105 * 105 bits, packed
    classes: list[str]  # [C], like images_background/Greek/character01, in name order
    char_id: NDArray[np.int16]  # [C], the NNNN of the file names NNNN_DD.png

    @property
    def names(self) -> list[str]:
        """Alphabet and character, without the set."""
        return [name.split("/", 1)[1] for name in self.classes]


def read(root: Path) -> Drawings:
    """The drawings in `root`: packed, or as a tree of PNG files in it or in its folder `omniglot-py`.

    Raises `DataError` where there are none, or where they are damaged.
    """
    if (root / PACKED).is_file():
        return read_packed(root / PACKED)
    if (tree := _tree_in(root)) is not None:
        return read_tree(tree)
    raise DataError(
        f"no Omniglot in {root}: looked for {PACKED}, omniglot-py/{_SETS[0]} and {_SETS[0]} there. {_REMEDY}"
    )


def files_in(root: Path) -> list[Path]:
    """The files that `read` reads."""
    if (root / PACKED).is_file():
        return [root / PACKED]
    tree = _tree_in(root)
    return [] if tree is None else sorted(path for name in _SETS for path in (tree / name).glob("*/*/*.png"))


def is_in(root: Path) -> bool:
    """Whether Omniglot lies in a folder, packed or as images."""
    return (root / PACKED).is_file() or _tree_in(root) is not None


def _tree_in(root: Path) -> Path | None:
    trees = (root / "omniglot-py", root)
    return next((tree for tree in trees if any((tree / name).is_dir() for name in _SETS)), None)


def read_packed(path: Path) -> Drawings:
    """The packed form: arrays bits, classes, char_id."""
    try:
        with open_regular(path) as opened, np.load(opened) as file:
            bits, classes, char_id = file["bits"], file["classes"], file["char_id"]
    except BROKEN_ARCHIVE as error:
        raise _damaged(path, str(error)) from error
    if bits.dtype != np.uint8 or bits.shape != (len(classes), DRAWERS, _ROW_BYTES) or len(char_id) != len(classes):
        raise _damaged(path, f"bits are {bits.dtype} {bits.shape} for {len(classes)} classes")
    names = [str(name) for name in classes]
    if any(len(name.split("/")) != 3 for name in names) or names != sorted(names):
        raise _damaged(path, "classes must be sorted names like images_background/Greek/character01")
    return Drawings(bits, names, char_id)


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(f"{path} is damaged or not packed Omniglot: {problem}. Delete it and fetch it anew. {_REMEDY}")


def read_tree(tree: Path) -> Drawings:
    """The PNG files `tree/images_*/ALPHABET/CHARACTER/NNNN_DD.png` (in them white = 1, ink = 0)."""
    folders = {
        f"{name}/{alphabet.name}/{character.name}": character
        for name in _SETS
        if (tree / name).is_dir()
        for alphabet in subfolders(tree / name)
        for character in subfolders(alphabet)
    }
    classes = sorted(folders)
    files = [path for name in classes for path in _twenty(folders[name])]
    bits = np.empty((len(files), _ROW_BYTES), np.uint8)

    def pack_one(index: int, image: Image.Image) -> None:
        if image.size != (SIDE, SIDE):
            raise ValueError(f"it has {image.width} x {image.height} pixels, not {SIDE} x {SIDE}")
        bits[index] = np.packbits(np.asarray(image.convert("L")) < 128)

    for_each_file(files, pack_one)
    char_id = np.array([int(path.name[:4]) for path in files[::DRAWERS]], np.int16)
    return Drawings(bits.reshape(-1, DRAWERS, _ROW_BYTES), classes, char_id)


def _twenty(folder: Path) -> list[Path]:
    files = image_paths(folder)
    ends = [f"_{drawer:02d}.png" for drawer in range(1, DRAWERS + 1)]
    if [path.name[4:] for path in files] != ends or not all(path.name[:4].isdigit() for path in files):
        raise DataError(f"{folder} must hold the drawings NNNN_01.png to NNNN_20.png, but has {len(files)} images")
    return files


def shrink(bits: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Packed drawings [n, 1379] as images [n, side, side] by Lanczos, ink bright.

    Pillow resizes rows, rounds to 8 bits, then resizes columns. Here many drawings stand in one column for the first
    pass and in one row for the second, which gives the same bytes in a third of the time.
    """
    n = len(bits)
    ink = np.unpackbits(bits, axis=-1, count=SIDE * SIDE).reshape(n * SIDE, SIDE) * np.uint8(255)
    narrow = np.asarray(Image.fromarray(ink).resize((side, n * SIDE), Image.Resampling.LANCZOS))
    row = np.ascontiguousarray(narrow.reshape(n, SIDE, side).transpose(1, 0, 2)).reshape(SIDE, n * side)
    small = np.asarray(Image.fromarray(row).resize((n * side, side), Image.Resampling.LANCZOS))
    return small.reshape(side, n, side).transpose(1, 0, 2)


def pack(tree: Path, out: Path) -> None:
    """Write the PNG files of `tree` as the packed form `out`, all of it or nothing.

    Arrays: bits, classes and char_id as in `Drawings`; vinyals_split, 0 train, 1 val, 2 test, 255 for none.
    """
    out = require_regular(out, "OUT")
    drawings = read_tree(tree)
    if not drawings.classes:
        raise DataError(f"no drawings in {tree}: it must hold {_SETS[0]} and {_SETS[1]}")
    split_of = {name: i for i, split in enumerate(SPLITS) for name in vinyals_names()[split]}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        bits=drawings.bits,
        classes=np.array(drawings.classes),
        char_id=drawings.char_id,
        vinyals_split=np.array([split_of.get(name, 255) for name in drawings.names], np.uint8),
    )
    write_whole(out, buffer.getvalue())


def vinyals_names() -> ClassSplits:
    """Alphabet and character of each split of Vinyals et al. (NeurIPS 2016)."""
    return {
        split: [f"{alphabet}/character{number:02d}" for alphabet, numbers in alphabets.items() for number in numbers]
        for split, alphabets in published("omniglot_vinyals").items()
    }


def download(root: Path) -> Path:
    """Fetch Lake's archives with torchvision into `root/omniglot-py` and pack them; returns the packed file."""
    try:
        from torchvision.datasets import Omniglot
    except ImportError as error:
        raise EnvironmentProblem("downloading Omniglot needs torchvision: pip install 'raymeta[vision]'") from error
    try:
        for background in (True, False):
            Omniglot(str(root), background=background, download=True)
    except (OSError, RuntimeError) as error:
        raise EnvironmentProblem(
            f"Omniglot could not be downloaded into {root}: {error}. Check the connection and the folder, or fetch "
            f"images_background.zip and images_evaluation.zip elsewhere and unpack them into {root / 'omniglot-py'}"
        ) from error
    pack(root / "omniglot-py", root / PACKED)
    return root / PACKED
