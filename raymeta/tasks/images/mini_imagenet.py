"""mini-ImageNet with the class split of Ravi and Larochelle, from files on disk."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split
from raymeta.options import STRICT
from raymeta.system.reading import open_regular
from raymeta.tasks.data_folder import Folder, data_folder
from raymeta.tasks.images.augmentation import AugmentedImages
from raymeta.tasks.images.base import Data, Found
from raymeta.tasks.images.class_images import Splits
from raymeta.tasks.images.files import Fit, image_paths, read_classes, subfolders
from raymeta.tasks.images.listing import stamp_of_paths
from raymeta.tasks.images.splits import ClassSplits, published, require_present

SIDE = 84
_REMEDY = (
    "mini-ImageNet cannot be downloaded from here (ImageNet's terms): put the images of each class into "
    "ROOT/n01532829/*.jpg and so on, or all of them into ROOT/images with train.csv, val.csv and test.csv "
    "(columns filename,label) beside it, and give tasks.root. `--tasks glyphs` needs no data"
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MiniImagenet(AugmentedImages):
    """100 classes of ImageNet, 64 / 16 / 20 as in Ravi and Larochelle (ICLR 2017), 600 images each in the original.

    uint8 [n, 3, 84, 84], the whole image squeezed by Lanczos as in the authors' own preprocessing, not cropped.
    """

    fit: ClassVar[Fit] = "squash"

    root: Folder | None = None
    """folder with a sub-folder per class (WordNet id), or with images/ and train.csv, val.csv, test.csv; by default
    mini_imagenet in $RAYMETA_DATA or ~/.cache/raymeta"""
    query_shot: PositiveInt = 15
    """query images per class"""

    def find(self) -> Found:
        files = self._files()
        lists = [data_folder(self.root, "mini_imagenet") / f"{split}.csv" for split in SPLITS]
        images = [path for split in SPLITS for some in files[split].values() for path in some]
        return Found(stamp_of_paths([*lists, *images]), files)

    def read(self, found: Found) -> Data:
        return Data({split: read_classes(found.files[split], side=SIDE, channels=3, fit=self.fit) for split in SPLITS})

    def load(self) -> Splits:
        """Read and resize all images."""
        return self.read(self.find()).splits

    def _files(self) -> dict[Split, dict[str, list[Path]]]:
        """Image files by class of every split."""
        root = data_folder(self.root, "mini_imagenet")
        if not root.is_dir():
            raise DataError(f"no mini-ImageNet in {root}: there is no such folder. {_REMEDY}")
        files = _listed_files(root) if (root / "images").is_dir() else _folder_files(root)
        splits: ClassSplits = published("mini_imagenet_ravi")
        require_present(splits, files, str(root), _REMEDY)
        return {split: {name: files[name] for name in splits[split]} for split in SPLITS}


def _folder_files(root: Path) -> dict[str, list[Path]]:
    files = {folder.name: image_paths(folder) for folder in subfolders(root)}
    return {name: paths for name, paths in files.items() if paths}


def _listed_files(root: Path) -> dict[str, list[Path]]:
    """Files of `root/images` by label, in the order of the three lists; which list names a class is not used."""
    files: dict[str, list[Path]] = {}
    for split in SPLITS:
        path = root / f"{split}.csv"
        if not path.is_file():
            raise DataError(f"{root / 'images'} has images but {path} is missing. {_REMEDY}")
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not {"filename", "label"} <= set(rows.fieldnames or ()):
                raise DataError(f"{path} must have the columns filename,label, but has {rows.fieldnames}")
            for row in rows:
                files.setdefault(row["label"], []).append(root / "images" / row["filename"])
    return files
