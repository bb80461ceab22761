"""Few-shot classification of one's own images: a folder with one sub-folder per class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from PIL import Image
from pydantic import Field, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split
from raymeta.options import STRICT
from raymeta.tasks.data_folder import Folder
from raymeta.tasks.images.augmentation import AugmentedImages
from raymeta.tasks.images.base import Data, Found
from raymeta.tasks.images.class_images import Splits
from raymeta.tasks.images.files import Channels, Headers, for_each_file, read_classes, read_headers
from raymeta.tasks.images.greys import FULL_RANGE, brightest, range_of
from raymeta.tasks.images.listing import ClassFiles, PassedOver, class_files, image_suffixes, split_folders, stamp_of
from raymeta.tasks.images.splits import ClassSplits, Share, cut_by_ratio, require_present, require_whole, shares_for
from raymeta.tasks.manifest import Manifest


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Images(AugmentedImages):
    """Images in `root/CLASS/*` or in `root/{train,val,test}/CLASS/*`, grey or colour, of any size.

    A folder between a class and its images, or classes in folders of their kind, are understood; so are `valid`,
    `validation` and capitals. Folders of splits decide the split where they are there; else the listed classes; else
    the classes are shuffled and cut by `split_ratio`. A split that a run does not use may be empty. Every image becomes
    its largest centred square, resized by Lanczos to [channels, side, side]; transparent parts become white. Greys of
    more than 8 bits become 8 bits of the range that their files tell, or else of the fewest of 8, 10, 12, 14 or 16 bits
    that hold the brightest of all files.
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
    skip_unreadable: bool = False
    """leave out files that cannot be read, and list them, instead of refusing the folder"""
    min_images: PositiveInt | None = None
    """leave out classes with fewer images, and list them, instead of refusing the folder"""

    @model_validator(mode="after")
    def _split_is_whole(self) -> Images:
        require_whole(self.split_ratio, self._listed())
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
        return self.read(self.find()).splits

    def find(self) -> Found:
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"there is no folder {root}: give a folder with one sub-folder per class as tasks.root")
        passed = PassedOver()
        folders = split_folders(root, passed)
        if folders is None:
            few: list[str] = []
            classes = self._enough(class_files(root, passed), root, few)
            names = self._listed() if self.train_classes else self._cut(list(classes))
            splits = _chosen(names, dict.fromkeys(SPLITS, classes), root)
        else:
            splits, few = self._by_folder(folders, root, passed)
        notes = [*passed.notes(root), *([_few_text(few, self.min_images)] if few else [])]
        files = [file for split in SPLITS for paths in splits[split].values() for file in paths]
        return Found(stamp_of(files), splits, tuple(notes))

    def _by_folder(
        self, folders: Mapping[Split, Path], root: Path, passed: PassedOver
    ) -> tuple[dict[Split, ClassFiles], list[str]]:
        """Classes of the folders of splits, all of them or those that are listed; a missing folder is empty."""
        few: list[str] = []
        found = {split: self._enough(class_files(path, passed), path, few) for split, path in folders.items()}
        for one, other in combinations(folders, 2):
            _require_disjoint(folders[one], folders[other], found[one].keys() & found[other].keys())
        splits = {split: found.get(split, {}) for split in SPLITS}
        return (_chosen(self._listed(), splits, root) if self.train_classes else splits), few

    def _enough(self, classes: ClassFiles, folder: Path, few: list[str]) -> ClassFiles:
        """The classes with `min_images`; without it, raises `DataError` for those that have no image at all."""
        least = self.min_images or 1
        small = [name for name, files in classes.items() if len(files) < least]
        if small and self.min_images is None:
            raise DataError(
                f"class folders without images in {folder}: {', '.join(small[:5])}{', ...' if len(small) > 5 else ''}. "
                f"Add files ending in {' '.join(sorted(image_suffixes()))} (convert others), put folders that are no "
                "classes elsewhere, or leave out such classes with tasks.min_images 1"
            )
        few += [f"{name} ({len(classes[name])})" for name in small]
        return {name: files for name, files in classes.items() if len(files) >= least}

    def _cut(self, names: list[str]) -> ClassSplits:
        return cut_by_ratio(names, self.split_ratio, self.split_seed)

    def read(self, found: Found) -> Data:
        files: dict[Split, ClassFiles] = found.files
        notes: list[str] = []
        paths = {s: {n: [f.path for f in fs] for n, fs in files[s].items()} for s in SPLITS}
        every = [path for split in SPLITS for some in paths[split].values() for path in some]
        unreadable: dict[Path, str] = {}
        headers = read_headers(every, go_on=self.skip_unreadable)
        unreadable |= headers.unreadable
        side, channels = self.side or headers.side, self.channels or headers.channels
        range_ = self._range(headers, unreadable, notes)
        splits = {
            split: read_classes(
                {name: [path for path in some if path not in unreadable] for name, some in paths[split].items()},
                side=side,
                channels=channels,
                fit=self.fit,
                range_=range_,
                unreadable=unreadable if self.skip_unreadable else None,
            )
            for split in SPLITS
        }
        if unreadable:
            notes.append(_unreadable_text(unreadable, len(every), Path(self.root)))
        return Data(self._without_small(splits, notes), notes, white=range_)

    def _range(self, headers: Headers, unreadable: dict[Path, str], notes: list[str]) -> int:
        """The range of greys of more than 8 bits, the same for all files."""
        if headers.deep_colour:
            notes.append(
                f"{len(headers.deep_colour):,} colour images have 16 bits a channel: the upper 8 of them are used"
            )
        if not headers.deep:
            return FULL_RANGE
        values = [0] * len(headers.deep)

        def see(index: int, image: Image.Image) -> None:
            values[index] = brightest(image)

        unreadable |= for_each_file(headers.deep, see, go_on=self.skip_unreadable)
        range_ = range_of(values)
        notes.append(
            f"{len(headers.deep):,} grey images of more than 8 bits, the brightest value {max(values):,}: taken as "
            f"{range_.bit_length()} bits, 0 black and {range_:,} white"
        )
        return range_

    def _without_small(self, splits: Splits, notes: list[str]) -> Splits:
        """Without classes that have too few images now that unreadable ones are left out."""
        least = self.min_images or (1 if self.skip_unreadable else 0)
        few = [
            f"{n} ({c})" for pool in splits.values() for n, c in zip(pool.names, pool.counts, strict=True) if c < least
        ]
        if not few:
            return splits
        notes.append(_few_text(few, least))
        return {split: pool.select(pool.counts >= least) for split, pool in splits.items()}

    def _remedy_for_few_classes(self, split: Split, splits: Sequence[Split]) -> str:
        root, ways = Path(self.root), {s: self.size(s).way for s in splits}
        folders = split_folders(root, PassedOver())
        lower = f"lower {self._option('way', split)}"
        if folders is not None and split not in folders:
            return (
                f"{root} has the folders {', '.join(sorted(path.name for path in folders.values()))} but not {split}: "
                f"give each of train, val and test its own classes, or put all class folders directly into it"
                + (". Without validation (validate_every 0) val may be missing" if split == "val" else "")
            )
        if folders is not None or self.train_classes:
            return f"{lower} or give it more classes"
        num_classes = sum(self.num_classes(s) for s in SPLITS)
        if (shares := shares_for(num_classes, ways)) is not None:
            cut_so = f"--tasks.split_ratio {_written(shares)}"
            return f"cut the {num_classes} classes otherwise, with {cut_so}, {lower}, or add classes"
        few = shares_for(num_classes, {s: way for s, way in ways.items() if s != "val"}) if "val" in ways else None
        cut_so = "--validate_every 0 --tasks.split_ratio "
        without = "" if few is None else f", or train without validation: {cut_so}{_written(few)}"
        return (
            f"{root} has {num_classes} classes, too few for any cut: {sum(ways.values())} are needed "
            f"({', '.join(f'{way} for {s}' for s, way in ways.items())}). Add classes, {lower}{without}"
        )

    def _remedy_for_few_images(self, needed: int) -> str:
        return f"or leave out such classes with tasks.min_images {needed}"

    def keeping(self, recorded: Manifest) -> Images:
        """With the side and channels that were found then, where the options leave them to the files."""
        shape = recorded.input_shape
        if isinstance(shape, dict) or len(shape) != 3:
            return self
        channels, side = shape[:2]
        return dataclasses.replace(self, side=self.side or side, channels=self.channels or (3 if channels == 3 else 1))

    def keeping_classes(self, recorded: Manifest) -> Images:
        lists = {split: tuple(content.classes) for split, content in recorded.splits.items()}
        return dataclasses.replace(
            self, train_classes=lists["train"], val_classes=lists.get("val", ()), test_classes=lists["test"]
        )


def _written(shares: Sequence[float]) -> str:
    """`0.5,0.25,0.25`: as a command line takes them."""
    return ",".join(f"{share:g}" for share in shares)


def _chosen(names: ClassSplits, splits: Mapping[Split, ClassFiles], root: Path) -> dict[Split, ClassFiles]:
    """The classes called `names` in each split."""
    there = {name for split in SPLITS for name in splits[split]}
    require_present(names, dict.fromkeys(there), str(root), f"It has {', '.join(sorted(there)[:8])}, ...")
    elsewhere = [f"{name} ({split})" for split in SPLITS for name in names[split] if name not in splits[split]]
    if elsewhere:
        raise DataError(
            f"classes are listed for a split and lie in the folder of another in {root}: {', '.join(elsewhere[:5])}. "
            "Move them, or leave the lists out"
        )
    return {split: {name: splits[split][name] for name in names[split]} for split in SPLITS}


def _require_disjoint(one: Path, other: Path, shared: set[str]) -> None:
    if shared:
        raise DataError(
            f"{one} and {other} share classes: {', '.join(sorted(shared)[:5])}. Few-shot learning is "
            "tested on classes never seen in training: merge the folders of each class and let tasks.split_ratio "
            "or tasks.train_classes, val_classes and test_classes divide the classes"
        )


def _few_text(few: Sequence[str], least: int | None) -> str:
    more = f", and {len(few) - 8} more" if len(few) > 8 else ""
    return f"{len(few)} class{'es' * (len(few) > 1)} left out, fewer than {least} images: {', '.join(few[:8])}{more}"


def _unreadable_text(unreadable: Mapping[Path, str], num_files: int, root: Path) -> str:
    told = [f"{path.relative_to(root)} ({problem[:80]})" for path, problem in list(unreadable.items())[:8]]
    more = f", and {len(unreadable) - 8} more" if len(unreadable) > 8 else ""
    return f"{len(unreadable):,} of {num_files:,} image files left out as unreadable: {', '.join(told)}{more}"
