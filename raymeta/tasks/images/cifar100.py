"""CIFAR-FS and FC100: the two few-shot splits of CIFAR-100, read from the files of its Python version."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS
from raymeta.options import STRICT
from raymeta.system.reading import open_regular
from raymeta.tasks.data_folder import Folder, data_folder
from raymeta.tasks.images.augmentation import AugmentedImages
from raymeta.tasks.images.base import Found
from raymeta.tasks.images.class_images import ClassImages, Splits
from raymeta.tasks.images.listing import stamp_of_paths
from raymeta.tasks.images.splits import ClassSplits, published, require_present

_FOLDER = "cifar-100-python"
_REMEDY = (
    "Get it with python -c \"from torchvision.datasets import CIFAR100; CIFAR100('ROOT', download=True)\" "
    "(needs raymeta[vision]) and give ROOT as tasks.root. `--tasks glyphs` needs no data"
)

_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, ImportError, LookupError),
    *(MemoryError, OverflowError, SystemError, pickle.UnpicklingError),
)
"""What unpickling a damaged file can raise (its documentation names most, flipped bits found the rest)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Cifar100(AugmentedImages):
    """Classes of CIFAR-100: uint8 [n, 3, 32, 32], training and test files merged to 600 images a class."""

    split_list: ClassVar[str]

    root: Folder | None = None
    """folder that holds cifar-100-python (or that folder itself); by default cifar100 in $RAYMETA_DATA or
    ~/.cache/raymeta"""
    query_shot: PositiveInt = 15
    """query images per class"""

    def find(self) -> Found:
        folder = _find(data_folder(self.root, "cifar100"))
        return Found(stamp_of_paths([folder / name for name in ("train", "test", "meta")]))

    def load(self) -> Splits:
        """Read both files."""
        folder = _find(data_folder(self.root, "cifar100"))
        names: list[str] = read_values(folder / "meta", "fine_label_names")[0]
        splits: ClassSplits = published(self.split_list)
        require_present(splits, dict.fromkeys(names), str(folder / "meta"), _REMEDY)
        images, labels = _read_images(folder, len(names))
        return {split: _pick(images, labels, names, splits[split]) for split in SPLITS}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CifarFS(_Cifar100):
    """CIFAR-100 split 64 / 16 / 20 at random: Bertinetto, Henriques, Torr, Vedaldi, ICLR 2019 (arXiv 1805.08136)."""

    split_list: ClassVar[str] = "cifar_fs"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FC100(_Cifar100):
    """CIFAR-100 split 60 / 20 / 20 by superclass: Oreshkin, Rodriguez, Lacoste, NeurIPS 2018 (arXiv 1805.10123)."""

    split_list: ClassVar[str] = "fc100"


def _find(root: Path) -> Path:
    for folder in (root / _FOLDER, root):
        if all((folder / name).is_file() for name in ("train", "test", "meta")):
            return folder
    raise DataError(
        f"no CIFAR-100: looked for the files train, test and meta in {root / _FOLDER} and {root}. {_REMEDY}"
    )


def _read_images(folder: Path, num_names: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [n, 3, 32, 32] and fine labels [n] of the training file, then of the test file."""
    parts = []
    for path in (folder / "train", folder / "test"):
        data, labels = (np.asarray(value) for value in read_values(path, "data", "fine_labels"))
        if data.dtype != np.uint8 or data.ndim != 2 or data.shape != (len(labels), 3 * 32 * 32):
            raise _damaged(path, f"its data is {data.dtype} {data.shape} for {len(labels)} labels")
        if labels.dtype.kind != "i" or not ((labels >= 0) & (labels < num_names)).all():
            raise _damaged(path, f"its labels are not numbers below {num_names}")
        parts.append((data.reshape(-1, 3, 32, 32), labels.astype(np.int64)))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _pick(images: NDArray[np.uint8], labels: NDArray[np.int64], names: list[str], classes: list[str]) -> ClassImages:
    rows = [np.flatnonzero(labels == names.index(name)) for name in classes]
    return ClassImages(images[np.concatenate(rows)], np.cumsum([0, *map(len, rows)], dtype=np.int64), classes)


class _ContainersOnly(pickle.Unpickler):
    """Reads numbers, text, containers and numpy arrays; refuses any other class, so that a file cannot run code."""

    _ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which CIFAR-100 does not")
        if name == "_reconstruct":  # its module moved in numpy 2
            return np.ndarray.__reduce__(np.empty(0))[0]
        return super().find_class(module, name)


def read_values(path: Path, *names: str) -> list[Any]:
    """The values called `names` in the pickled dictionary `path`."""
    try:
        with open_regular(path) as file:
            values = _ContainersOnly(file, encoding="latin1").load()
    except _UNREADABLE as error:
        raise _damaged(path, str(error)) from error
    missing = [name for name in names if not isinstance(values, dict) or name not in values]
    if missing:
        raise _damaged(path, f"it has no {', '.join(missing)}")
    return [values[name] for name in names]


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(f"{path} is not a file of CIFAR-100's Python version: {problem}. {_REMEDY}")
