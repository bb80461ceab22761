"""Few-shot classification of one's own images: a folder with one sub-folder per class."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split
from raymeta.options import STRICT
from raymeta.tasks.class_splits import ClassSplits, cut, require_present
from raymeta.tasks.image_classes import ImageTaskSet, Splits
from raymeta.tasks.image_files import SUFFIXES, Channels, Folder, image_paths, read_classes, shape_of_files, subfolders

ClassFiles = dict[str, list[Path]]
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Images(ImageTaskSet):
    """Images in `root/CLASS/*` or in `root/{train,val,test}/CLASS/*`, grey or colour, of any size.

    The sub-folders train, val and test decide the split where exactly these are there; else the listed classes; else
    the classes are shuffled and cut by `split_ratio`. Every image becomes its largest centred square, resized by
    Lanczos to [channels, side, side]; transparent parts become white.
    """

    root: Folder
    """folder with one sub-folder per class, or with train, val and test folders that hold them"""
    split_ratio: tuple[Share, Share, Share] = (0.64, 0.16, 0.20)
    """shares of the classes for train, val and test; validation and test are rounded to whole classes"""
    split_seed: int = Field(default=0, ge=0, lt=2**64)
    """which classes a cut by ratio gives to each split"""
    train_classes: tuple[str, ...] = ()
    """names of the classes to train on; with val_classes and test_classes, in place of split_ratio"""
    val_classes: tuple[str, ...] = ()
    """names of the classes to choose checkpoints by"""
    test_classes: tuple[str, ...] = ()
    """names of the classes to report on"""
    side: PositiveInt | None = None
    """height and width in pixels; by default the median of the files' shorter sides, at most 84"""
    channels: Channels | None = None
    """1 for grey, 3 for colour; by default 3 if any file has colour"""

    @model_validator(mode="after")
    def _split_is_whole(self) -> Images:
        if abs(sum(self.split_ratio) - 1) > 1e-6:
            raise ValueError(f"split_ratio adds up to {sum(self.split_ratio):g}: its three shares must make 1")
        lists = self._listed()
        if any(lists.values()) and not all(lists.values()):
            raise ValueError("give all of train_classes, val_classes and test_classes, or none")
        names = [name for split in SPLITS for name in lists[split]]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"classes listed twice in train_classes, val_classes, test_classes: {', '.join(twice)}")
        return self

    def _listed(self) -> ClassSplits:
        lists: dict[Split, tuple[str, ...]] = {
            "train": self.train_classes,
            "val": self.val_classes,
            "test": self.test_classes,
        }
        return {split: list(names) for split, names in lists.items()}

    def load(self) -> Splits:
        """Read and resize all images."""
        files = self._files()
        side, channels = self.side, self.channels
        if side is None or channels is None:
            found = shape_of_files([p for split in SPLITS for paths in files[split].values() for p in paths])
            side, channels = side or found[0], channels or found[1]
        return {split: read_classes(files[split], side=side, channels=channels, fit="crop") for split in SPLITS}

    def _files(self) -> dict[Split, ClassFiles]:
        """Image files by class of every split."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"there is no folder {root}: give a folder with one sub-folder per class as tasks.root")
        names = {path.name for path in subfolders(root)}
        if names and names <= set(SPLITS):
            return _by_subfolder(root, names)
        classes = _class_files(root)
        splits = self._listed()
        if self.train_classes:
            require_present(splits, classes, str(root), f"It has {', '.join(sorted(classes)[:8])}, ...")
        else:
            splits = self._cut(list(classes), root)
        return {split: {name: classes[name] for name in splits[split]} for split in SPLITS}

    def _cut(self, names: list[str], root: Path) -> ClassSplits:
        num_val, num_test = (round(share * len(names)) for share in self.split_ratio[1:])
        if min(num_val, num_test, len(names) - num_val - num_test) < 1:
            raise DataError(
                f"{root} has {len(names)} classes, too few to cut by split_ratio {self.split_ratio}: a split would "
                "be empty. Add classes, change tasks.split_ratio, or list them (tasks.train_classes, ...)"
            )
        return cut(names, num_val, num_test, self.split_seed)


def _by_subfolder(root: Path, names: set[str]) -> dict[Split, ClassFiles]:
    missing = [split for split in SPLITS if split not in names]
    if missing:
        raise DataError(
            f"{root} has the folders {', '.join(sorted(names))} but not {', '.join(missing)}: give each of train, "
            "val and test its own classes, or put all class folders directly into it"
        )
    files = {split: _class_files(root / split) for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        shared = sorted(files[one].keys() & files[other].keys())
        if shared:
            raise DataError(
                f"{root / one} and {root / other} share classes: {', '.join(shared[:5])}. Few-shot learning is "
                "tested on classes never seen in training: merge the folders of each class and let tasks.split_ratio "
                "or tasks.train_classes, val_classes and test_classes divide the classes"
            )
    return files


def _class_files(folder: Path) -> ClassFiles:
    files = {path.name: image_paths(path) for path in subfolders(folder)}
    if not files:
        raise DataError(f"{folder} has no sub-folders: put the images of each class into a folder of its own there")
    empty = [name for name, paths in files.items() if not paths]
    if empty:
        raise DataError(
            f"class folders without images in {folder}: {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}. "
            f"Remove them or add files ending in {' '.join(SUFFIXES)}"
        )
    return files
