"""Folders of images as people have them: which files are images, which folders are classes, which are splits.

Understood are `ROOT/CLASS/*`, `ROOT/CLASS/images/*` and `ROOT/SUPER/CLASS/*`, and any of them in a folder for each
split, whose names may be written in capitals or as `SPLIT_NAMES` says. Anything else is told, with what lies where.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split

STILL_IMAGES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx"),
    *(".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
)
"""Endings of files that hold one picture; those count that the installed Pillow reads."""

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What people call the folders of splits, in small letters."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpegimages")
"""What people call a folder between a class and its images."""

NO_CLASSES = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__")
"""Folders, in small letters, that systems leave behind and nobody means as a class."""

_DEEPEST = 6  # levels that are looked at to say where the images lie


@cache
def image_suffixes() -> frozenset[str]:
    """Endings of files that count as images, in small letters."""
    readable = Image.registered_extensions()
    return frozenset(suffix for suffix in STILL_IMAGES if suffix in readable)


class ImageFile(NamedTuple):
    """A file with what tells that it was replaced."""

    path: Path
    size: int
    changed_ns: int


ClassFiles = dict[str, list[ImageFile]]


class Look(NamedTuple):
    """What lies directly in a folder, hidden things and `NO_CLASSES` left out."""

    images: list[ImageFile]
    folders: list[Path]
    others: list[Path]  # files that are no images, pipes and devices


@dataclass
class PassedOver:
    """What was found and not used: files, and whole folders."""

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def notes(self, root: Path) -> list[str]:
        """In words, the files by their ending with a few names."""
        by_ending: dict[str, list[Path]] = defaultdict(list)
        for path in self.files:
            by_ending[path.suffix.lower() or "without ending"].append(path)
        told = [f"{ending} {len(paths):,} ({_some(paths, root)})" for ending, paths in sorted(by_ending.items())]
        plural = "s" * (len(self.files) > 1)
        texts = [f"{len(self.files):,} file{plural} passed over as no image: {', '.join(told)}"] if told else []
        if self.folders:
            texts.append(f"folders passed over: {_some(self.folders, root, 8)}")
        return texts


def _some(paths: list[Path], root: Path, most: int = 3) -> str:
    names = [str(path.relative_to(root)) for path in paths[:most]]
    return ", ".join(names) + (", ..." if len(paths) > most else "")


def look(folder: Path) -> Look:
    """See what lies in `folder`; raises `DataError` where it cannot be listed."""
    found = Look([], [], [])
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror or error}") from error
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or entry.name.lower() in NO_CLASSES:
            continue
        if entry.is_dir():
            found.folders.append(path)
        elif entry.is_file() and path.suffix.lower() in image_suffixes():
            status = entry.stat()
            found.images.append(ImageFile(path, status.st_size, status.st_mtime_ns))
        else:
            found.others.append(path)
    return found


def stamp_of(files: Iterable[ImageFile]) -> str:
    """Another text whenever a file is added, removed or replaced."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(f"{file.path}\n{file.size} {file.changed_ns}\n"))
    return digest.hexdigest()


def stamp_of_paths(paths: Iterable[Path]) -> str:
    """`stamp_of` for files that may be missing; empty if all are."""
    there = [(path, path.stat()) for path in paths if path.is_file()]
    if not there:
        return ""
    return stamp_of(ImageFile(path, status.st_size, status.st_mtime_ns) for path, status in there)


def split_folders(root: Path, passed: PassedOver) -> dict[Split, Path] | None:
    """The folder of each split in `root` that has one; None where its folders are classes.

    Raises `DataError` where two folders are for one split.
    """
    top = look(root)
    named = {path: split for path in top.folders if (split := split_called(path.name)) is not None}
    looks = {path: look(path) for path in named}
    flat = [path.name for path, found in looks.items() if found.images and not found.folders]
    if len(flat) > 1 and len(flat) == len(top.folders):
        raise DataError(
            f"{', '.join(flat)} of {root} hold images themselves: put the images of each class into a folder of its "
            f"own in them, such as {root / flat[0] / 'CLASS'}"
        )
    holding = {path: split for path, split in named.items() if not looks[path].images and looks[path].folders}
    if not holding or (len(set(holding.values())) < 2 and len(top.folders) > len(holding)):
        return None
    found: dict[Split, Path] = {}
    for path, split in holding.items():
        if split in found:
            raise DataError(f"{root} has both {found[split].name} and {path.name} for {split}: merge them into one")
        found[split] = path
    passed.folders += [path for path in top.folders if path not in holding]
    passed.files += [*(file.path for file in top.images), *top.others]
    return {split: found[split] for split in SPLITS if split in found}


def split_called(name: str) -> Split | None:
    """The split that people mean by a folder's name."""
    return next((split for split in SPLITS if name.strip().lower() in SPLIT_NAMES[split]), None)


def class_files(folder: Path, passed: PassedOver) -> ClassFiles:
    """Images by class, in name order; a class without any has an empty list.

    Raises `DataError` where no folder holds images, or where some classes lie deeper than others.
    """
    top = look(folder)
    if not top.folders:
        here = f"{len(top.images):,} images but " if top.images else ""
        raise DataError(
            f"{folder} has {here}no sub-folders: put the images of each class into a folder of its own there"
        )
    passed.files += [*(file.path for file in top.images), *top.others]
    looks = {path: look(path) for path in top.folders}
    deeper = {path: {sub: look(sub) for sub in found.folders} for path, found in looks.items()}
    inside = {path: {s: found for s, found in subs.items() if found.images} for path, subs in deeper.items()}
    if any(found.images for found in looks.values()):
        return _direct(folder, looks, inside, passed)
    if not any(inside.values()):
        raise DataError(_nothing_there(folder))
    passed.files += [path for found in looks.values() for path in found.others]
    return _deeper(inside, deeper, passed)


def _direct(
    folder: Path, looks: Mapping[Path, Look], inside: Mapping[Path, Mapping[Path, Look]], passed: PassedOver
) -> ClassFiles:
    """`ROOT/CLASS/*`."""
    mixed = [path.name for path, found in looks.items() if not found.images and inside[path]]
    if mixed:
        direct = next(path.name for path, found in looks.items() if found.images)
        raise DataError(
            f"the class folders of {folder} differ in depth: {direct} holds images itself, {', '.join(mixed[:5])} only "
            f"in {', '.join(str(sub.relative_to(folder)) for sub in list(inside[folder / mixed[0]])[:3])}. Put the "
            "images of each class directly into its folder, or folders that are no classes outside of this one"
        )
    for path, found in looks.items():
        passed.files += found.others
        passed.folders += list(inside[path])
    return {path.name: found.images for path, found in looks.items()}


def _deeper(
    inside: Mapping[Path, Mapping[Path, Look]], deeper: Mapping[Path, Mapping[Path, Look]], passed: PassedOver
) -> ClassFiles:
    """`ROOT/CLASS/images/*`, or `ROOT/SUPER/CLASS/*`."""
    chosen = _between({path: list(subs) for path, subs in inside.items() if subs})
    files: ClassFiles = {}
    for path, subs in deeper.items():
        if not subs:
            files[path.name] = []
        elif chosen is None:
            files |= {f"{path.name}/{sub.name}": found.images for sub, found in subs.items()}
        else:
            files[path.name] = subs[chosen[path]].images if path in chosen else []
            passed.folders += [sub for sub in subs if sub != chosen.get(path)]
        used = subs.values() if chosen is None else [subs[chosen[path]]] if path in chosen else []
        passed.files += [other for found in used for other in found.others]
        passed.folders += [folder for found in used for folder in found.folders]
    return files


def _between(subfolders: Mapping[Path, list[Path]]) -> dict[Path, Path] | None:
    """The folder between each class and its images, where there is one: called images, or alone and called the same."""
    called = {path: [sub for sub in subs if sub.name.lower() in IMAGE_FOLDERS] for path, subs in subfolders.items()}
    if all(len(subs) == 1 for subs in called.values()):
        return {path: subs[0] for path, subs in called.items()}
    names = Counter(tuple(sub.name for sub in subs) for subs in subfolders.values())
    if len(subfolders) > 1 and len(names) == 1 and len(next(iter(names))) == 1:
        return {path: subs[0] for path, subs in subfolders.items()}
    return None


def _nothing_there(folder: Path) -> str:
    found, level = _first_image(folder)
    if found is not None:
        root = found.parents[1] if split_called(found.parents[1].name) is None else found.parents[2]
        return (
            f"the class folders of {folder} hold no images; the first that was found lies {level - 1} levels deeper: "
            f"{found}. Give the folder whose sub-folders are the classes, or the splits, as tasks.root, such as {root}"
        )
    return (
        f"class folders without images in {folder}: {', '.join(path.name for path in look(folder).folders[:5])}. "
        f"Images are files ending in {' '.join(sorted(image_suffixes()))}: convert others, or give another tasks.root"
    )


def _first_image(folder: Path) -> tuple[Path | None, int]:
    """The first image below `folder`, level by level, and how many folders deep it lies."""
    level = [folder]
    for depth in range(_DEEPEST):
        looks = [look(path) for path in level[:100]]
        for found in looks:
            if found.images:
                return found.images[0].path, depth
        level = [sub for found in looks for sub in found.folders]
    return None, 0
