"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings each (Lake et al., Science 350:1332, 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.keys import SPLITS, Split
from raymeta.options import STRICT
from raymeta.tasks.data_folder import Folder, data_folder
from raymeta.tasks.images.base import Found, ImageTaskSet, Rotations
from raymeta.tasks.images.class_images import ClassImages, Splits
from raymeta.tasks.images.listing import stamp_of_paths
from raymeta.tasks.images.omniglot import files as omniglot_files
from raymeta.tasks.images.splits import ClassSplits, cut, require_present

_SIDE = 28
_CLASSES_AT_ONCE = 25  # bounds the memory of unpacked drawings to some 10 MB
VAL_ALPHABETS = (
    "Alphabet_of_the_Magi",
    "Blackfoot_(Canadian_Aboriginal_Syllabics)",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    "Tagalog",
)
"""Background alphabets that validate under `lake`: those that Meta-Dataset chose (Triantafillou et al., ICLR 2020)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Omniglot(ImageTaskSet):
    """Omniglot as uint8 [n, 1, 28, 28], ink 255 on 0, resized by Lanczos.

    Splits of the 1623 characters: `vinyals` 1028 / 172 / 423 (the list of the Matching and Prototypical Networks);
    `lake` 883 / 81 / 659, where whole alphabets are apart: the background set without five validation alphabets
    (`VAL_ALPHABETS`), these five, and the evaluation set; `random` 1100 / 100 / 423 by `split_seed`, MAML's sizes.
    """

    inverted: ClassVar[bool] = True

    root: Folder | None = None
    """folder with omniglot_bits.npz, or with torchvision's omniglot-py tree; by default omniglot in $RAYMETA_DATA or
    ~/.cache/raymeta"""
    query_shot: PositiveInt = 5
    """query images per class"""
    split_scheme: Literal["vinyals", "lake", "random"] = "vinyals"
    """which characters are for train, val and test: vinyals, lake (by alphabet), or random by split_seed"""
    split_seed: int = Field(default=0, ge=0, lt=2**64)
    """seed of the random split"""
    rotations: Rotations = "classes"
    """turns by 90 degrees: as classes of their own, one drawn per class and episode, or none"""

    @property
    def rotation_policy(self) -> Rotations:
        return self.rotations

    def find(self) -> Found:
        return Found(stamp_of_paths(omniglot_files.files_in(data_folder(self.root, "omniglot"))))

    def load(self) -> Splits:
        """Read the packed file or the PNG tree."""
        root = data_folder(self.root, "omniglot")
        drawings = omniglot_files.read(root)
        row = {name: i for i, name in enumerate(drawings.names)}
        require_present(
            omniglot_files.vinyals_names(),
            row,
            str(root),
            "Omniglot is incomplete there: it needs both images_background and images_evaluation",
        )
        splits = self._names(drawings.classes)
        return {
            split: class_images(drawings.bits[[row[name] for name in splits[split]]], splits[split]) for split in SPLITS
        }

    def _names(self, classes: Sequence[str]) -> ClassSplits:
        """Alphabet and character of the classes in each split."""
        if self.split_scheme == "vinyals":
            return omniglot_files.vinyals_names()
        if self.split_scheme == "random":
            return cut([name.split("/", 1)[1] for name in classes], 100, 423, self.split_seed)
        splits: ClassSplits = {"train": [], "val": [], "test": []}
        for name in classes:
            lake_set, alphabet, character = name.split("/")
            background: Split = "val" if alphabet in VAL_ALPHABETS else "train"
            splits["test" if lake_set == "images_evaluation" else background].append(f"{alphabet}/{character}")
        return splits


def class_images(bits: NDArray[np.uint8], names: list[str]) -> ClassImages:
    """Shrunk images of packed drawings [C, 20, 1379]."""
    images = np.empty((len(names), omniglot_files.DRAWERS, _SIDE, _SIDE), np.uint8)
    for start in range(0, len(names), _CLASSES_AT_ONCE):
        part = bits[start : start + _CLASSES_AT_ONCE]
        small = omniglot_files.shrink(part.reshape(-1, part.shape[-1]), _SIDE)
        images[start : start + len(part)] = small.reshape(len(part), -1, _SIDE, _SIDE)
    starts = np.arange(len(names) + 1, dtype=np.int64) * omniglot_files.DRAWERS
    return ClassImages(images.reshape(-1, 1, _SIDE, _SIDE), starts, names)
