"""Where labelled images come from: drawn glyphs, Omniglot, emoji, and a folder of one's own; read as elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raymeta.errors import DataError
from raymeta.keys import SPLITS
from raymeta.system.reading import open_regular
from raymeta.tasks.classification.labelled import Ids, Labelled, numbered
from raymeta.tasks.data_folder import data_folder
from raymeta.tasks.images.base import Found, ImageTaskSet
from raymeta.tasks.images.class_images import ClassImages
from raymeta.tasks.images.files import BROKEN_ARCHIVE
from raymeta.tasks.images.folder import Images
from raymeta.tasks.images.glyphs import Glyphs
from raymeta.tasks.images.listing import ClassFiles, PassedOver, split_folders, stamp_of_paths
from raymeta.tasks.images.omniglot import files as omniglot_files
from raymeta.tasks.images.omniglot.task_set import Omniglot, class_images
from raymeta.tasks.images.splits import shuffled

SourceName = Literal["glyphs", "omniglot", "emoji", "images"]
EMOJI = "emoji32.npz"


class Asked(NamedTuple):
    """What is wanted of a source: how many classes (all for None), chosen by `seed`, and whether these are groups.

    `in_domains` says that folders are called DOMAIN/CLASS.
    """

    classes: int | None
    groups: bool
    seed: int
    drawers: int
    in_domains: bool = False


class Read(NamedTuple):
    """Labelled images, and the task set whose reader makes such inputs of somebody's own files, where there is one."""

    data: Labelled
    like: ImageTaskSet | None
    notes: tuple[str, ...] = ()


def source_in(root: str | None) -> SourceName:
    """What lies in a folder; drawn glyphs need none."""
    if root is None:
        return "glyphs"
    if (Path(root) / EMOJI).exists():
        return "emoji"
    return "omniglot" if omniglot_files.is_in(Path(root)) else "images"


def task_set_of(source: SourceName, root: str | None, asked: Asked) -> ImageTaskSet | None:
    """The task set that reads the images of `source`; None for emoji."""
    match source:
        case "glyphs":
            num_classes = asked.classes or 10
            return Glyphs(
                train_classes=num_classes, val_classes=1, test_classes=1, drawers=asked.drawers, glyph_seed=asked.seed
            )
        case "omniglot":
            return Omniglot(root=root, rotations="none")
        case "images":
            return Images(root=_plain_folder(root))
        case "emoji":
            return None


def _plain_folder(root: str | None) -> str:
    if root is None:
        raise DataError("tasks.source images: give the folder with one sub-folder per class as tasks.root")
    folder = Path(root).expanduser()
    splits = split_folders(folder, PassedOver()) if folder.is_dir() else None
    if splits:
        raise DataError(
            f"{root} holds folders of splits: give the one with the class folders as tasks.root, such as "
            f"{next(iter(splits.values()))}. The parts are cut by tasks.clean, tasks.val and tasks.test"
        )
    return root


def stamp_of(source: SourceName, root: str | None, like: ImageTaskSet | None) -> Found:
    """The files that the images come from, as they are now."""
    if like is None:
        return Found(stamp_of_paths([data_folder(root, "emoji") / EMOJI]))
    return like.find()


def read(source: SourceName, root: str | None, asked: Asked, like: ImageTaskSet | None, found: Found) -> Read:
    """All images of a source. Raises `DataError` where they are missing or damaged."""
    match like:
        case None:
            return Read(_emoji(data_folder(root, "emoji") / EMOJI, asked), None)
        case Glyphs():
            pool = like.load()["train"]
            names = [f"glyph {number}" for number in range(len(pool.names))]
            return Read(_of_pool(pool._replace(names=names)), like)
        case Omniglot():
            return Read(_omniglot(like, asked), like)
        case _:
            files = _merged(found)
            data = like.read(found._replace(files={"train": files, "val": {}, "test": {}}))
            pool = _chosen(data.splits["train"], asked)
            shown = np.array([f"{name}/{file.path.name}" for name in pool.names for file in files[name]])
            return Read(_of_pool(pool)._replace(names=shown), like, (*found.notes, *data.notes))


def _of_pool(pool: ClassImages) -> Labelled:
    label, item = numbered(pool.counts.tolist())
    return Labelled(pool.images, label, item, np.zeros_like(label), list(pool.names), [])


def _chosen(pool: ClassImages, asked: Asked) -> ClassImages:
    """The classes that were asked for, in their old order, and in every domain."""
    classes = [(asked.in_domains and name.partition("/")[2]) or name for name in pool.names]
    return pool.select(np.isin(classes, names_of(list(dict.fromkeys(classes)), asked)))


def names_of(names: Sequence[str], asked: Asked) -> list[str]:
    """The classes that were asked for. Raises `DataError` where there are fewer."""
    if asked.classes is not None and asked.classes > len(names):
        raise DataError(f"tasks.classes {asked.classes} are more than the {len(names)} that there are: lower it")
    return sorted(shuffled(list(names), asked.seed)[: asked.classes])


def _omniglot(like: Omniglot, asked: Asked) -> Labelled:
    """Characters as classes, or alphabets, of which every drawing is an item."""
    drawings = omniglot_files.read(data_folder(like.root, "omniglot"))
    labels = [name.split("/")[0] if asked.groups else name for name in drawings.names]
    wanted = names_of(list(dict.fromkeys(labels)), asked._replace(classes=asked.classes or 10))
    rows = [row for name in wanted for row, label in enumerate(labels) if label == name]
    pool = class_images(drawings.bits[rows], [labels[row] for row in rows])
    label, item = numbered([labels.count(name) * omniglot_files.DRAWERS for name in wanted])
    return Labelled(pool.images, label, item, np.zeros_like(label), wanted, [])


def _merged(found: Found) -> ClassFiles:
    """All class folders in name order, however the task set would split them."""
    return dict(sorted((name, files) for split in SPLITS for name, files in found.files[split].items()))


def _emoji(path: Path, asked: Asked) -> Labelled:
    """Emoji in several styles [emoji, styles, height, width, 3]: classes are emoji or their groups."""
    arrays = _emoji_arrays(path)
    names = [str(name) for name in arrays["groups" if asked.groups else "names"]]
    wanted = names_of(sorted(set(names)), asked)
    rows = np.array([row for name in wanted for row in range(len(names)) if names[row] == name])
    num_styles = arrays["images"].shape[1]
    images = arrays["images"][rows].reshape(-1, *arrays["images"].shape[2:]).transpose(0, 3, 1, 2)
    domain: Ids = np.tile(np.arange(num_styles), len(rows))
    label, item = _emoji_items([names.count(name) for name in wanted], num_styles, asked)
    styles = [str(style) for style in arrays["styles"]]
    shown = _shown([str(name) for name in arrays["names"][rows]], styles, asked)
    return Labelled(images, label, item, domain, wanted, styles, shown, white_paper=True)


def _shown(names: Sequence[str], styles: Sequence[str], asked: Asked) -> NDArray[np.str_]:
    """Name of each picture's item: that of the emoji in all styles, or with the style where the emoji is the class."""
    return np.array([name if asked.groups else f"{name}/{style}" for name in names for style in styles])


def _emoji_items(counts: Sequence[int], num_styles: int, asked: Asked) -> tuple[Ids, Ids]:
    """Label and item of each picture: an emoji is one item of its group, in all styles, or many as a class."""
    if not asked.groups:
        return numbered([count * num_styles for count in counts])
    label, item = numbered(counts)
    return np.repeat(label, num_styles), np.repeat(item, num_styles)


def _emoji_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    if not path.is_file():
        raise DataError(
            f"there is no {path}: give its folder as tasks.root, or take --tasks.source glyphs, without data"
        )
    try:
        with open_regular(path) as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("images", "names", "groups", "styles")}
    except BROKEN_ARCHIVE as error:
        raise DataError(f"{path} is damaged or holds no emoji: {error}. Put the file back") from error
    shape = arrays["images"].shape
    named = all(len(arrays[name]) == shape[0] for name in ("names", "groups"))
    if len(shape) != 5 or arrays["images"].dtype != np.uint8 or not named or len(arrays["styles"]) != shape[1]:
        raise DataError(f"{path}: images must be uint8 [emoji, styles, height, width, 3] with a name and group each")
    return arrays
