"""Episodes drawn from images that are grouped by class: the common part of all image task sets."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split, TaskKey, uniforms
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.draws import distinct
from raymeta.tasks.episodes import Episode, Examples, Size, one_task
from raymeta.tasks.held import Held
from raymeta.tasks.images.class_images import ClassImages, Splits
from raymeta.tasks.images.files import Fit
from raymeta.tasks.images.greys import FULL_RANGE
from raymeta.tasks.images.pictures import Pictures
from raymeta.tasks.manifest import ClassContents, Contents, Manifest, mark_of_bytes, sha256_of

Rotations = Literal["none", "episode", "classes"]


class Found(NamedTuple):
    """The files that images come from, before they are read; `stamp` is another one when any of them is replaced."""

    stamp: str = ""
    files: Any = None
    notes: tuple[str, ...] = ()


class Data:
    """What was read: the images of all splits, and what a person should know of them."""

    def __init__(self, splits: Splits, notes: Sequence[str] = (), *, white: int = FULL_RANGE) -> None:
        """`white`: its value in greys of more than 8 bits."""
        self.splits = splits
        self.notes = tuple(notes)
        self.white = white

    @cached_property
    def values(self) -> dict[Split, list[str]]:
        """A mark of the pixels of each class."""
        return {split: _marks_of_pixels(pool) for split, pool in self.splits.items()}


def _marks_of_pixels(pool: ClassImages) -> list[str]:
    bounds = zip(pool.starts[:-1].tolist(), pool.starts[1:].tolist(), strict=True)
    return [mark_of_bytes(pool.images[start:stop].tobytes()) for start, stop in bounds]


_HELD: Held[Data] = Held()

_EPISODE_FIELDS = (
    "way", "shot", "query_shot", "train_way", "train_shot", "train_query_shot", "rotations", "data",
    "train_flip", "train_crop", "train_colour",
)  # fmt: skip
"""Fields that leave the images as they are read."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageTaskSet(TaskSet):
    """N-way K-shot classification of images held once per process as uint8.

    A subclass says where the images come from: `load`, and `find` and `read` where they come from files, so that
    replaced ones are read again. Its fields besides the episode's size and `rotations` are what determines the images.
    Classes are drawn in random order, so the label of a class is random in every episode.
    """

    goal: ClassVar[Goal] = "classification"
    unit: ClassVar[str] = "images"
    fit: ClassVar[Fit] = "crop"
    """how a picture of another shape becomes a square"""
    inverted: ClassVar[bool] = False
    """whether dark strokes on light paper are bright ones on black here"""

    way: int = Field(default=5, ge=2)
    """classes in an episode"""
    shot: PositiveInt = 1
    """support images per class"""
    query_shot: PositiveInt = 1
    """query images per class"""
    train_way: int | None = Field(default=None, ge=2)
    """classes in a training episode; the same as `way` unless given"""
    train_shot: PositiveInt | None = None
    """support images per class in training; the same as `shot` unless given"""
    train_query_shot: NonNegativeInt | None = None
    """query images per class in training; the same as `query_shot` unless given"""
    data: Literal["ship", "local"] = "ship"
    """how Ray workers get the images: one copy for each node from the driver, or read by every worker itself"""

    @abstractmethod
    def load(self) -> Splits:
        """Read or draw all images; raises `DataError` where that is impossible."""

    def find(self) -> Found:
        """The files that the images come from, as they are now; nothing where they are drawn."""
        return Found()

    def read(self, found: Found) -> Data:
        """The images in these files."""
        return Data(self.load())

    @property
    def rotation_policy(self) -> Rotations:
        """Rotations by 90 degrees: never, one per class and episode, or as four classes of their own."""
        return "none"

    @property
    def splits(self) -> Splits:
        """All images of the task set, loaded on first use and kept as they are until the next `check`."""
        return self._held.splits

    @property
    def _held(self) -> Data:
        data: Data | None = self.__dict__.get("_data")
        return self._look() if data is None else data

    def _look(self) -> Data:
        """Look at the files, and read them unless this process holds them as they are now."""
        found = self.find()
        self.__dict__["_found_notes"] = found.notes
        data = _HELD.get(self._source, found.stamp)
        if data is None:
            data = self.read(found)
            _HELD.keep(self._source, found.stamp, data)
        self.__dict__["_data"] = data
        return data

    @property
    def _source(self) -> tuple[object, ...]:
        """The options that determine the images."""
        values = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in _EPISODE_FIELDS]
        return (type(self), *((name, repr(value)) for name, value in values))

    def _chosen(self) -> list[list[str]]:
        """Those that say what the images are and are not the defaults, which later versions may add to."""
        defaults = {f.name: getattr(f.default, "default", f.default) for f in dataclasses.fields(self)}
        names = [name for name in defaults if name not in _EPISODE_FIELDS and name != "root"]
        return [[name, repr(getattr(self, name))] for name in names if getattr(self, name) != defaults[name]]

    def __getstate__(self) -> dict[str, Any]:
        """Images do not travel with the task set; what they should be does, for a process that reads them itself."""
        state = {
            name: value for name, value in self.__dict__.items() if name not in ("_data", "_received", "_found_notes")
        }
        if "_data" in self.__dict__ and self.data == "local":
            state["_expected"] = {split: self._files_sha256(split) for split in self.splits}
        return state

    def to_send(self) -> object:
        return self.splits if self.data == "ship" else None

    def receive(self, data: object) -> None:
        self.__dict__["_data"] = Data(cast(Splits, data))
        self.__dict__["_received"] = True

    def manifest(self, splits: Sequence[Split] = SPLITS) -> Manifest:
        """Of all splits that hold classes, whichever are in use: they cost nothing more."""
        return super().manifest([split for split in SPLITS if split in splits or self.splits[split].names])

    def contents(self, split: Split) -> Contents:
        pool, values = self.splits[split], self._held.values[split]
        marks = pool.marks or [""] * len(pool.names)
        rows = zip(pool.names, pool.counts.tolist(), marks, values, strict=True)
        classes = {name: ClassContents(count, mark, value) for name, count, mark, value in rows}
        return Contents(classes, self._files_sha256(split), len(classes))

    def _files_sha256(self, split: Split) -> str:
        """Over names and numbers, and over sizes of files, or the options where the images follow from these alone."""
        pool = self.splits[split]
        options = [] if pool.marks is not None else self._chosen()
        return sha256_of([pool.names, pool.counts.tolist(), pool.marks, options])

    def drawn_from(self, split: Split) -> object:
        pool, values = self.splits[split], self._held.values[split]
        shape = [*pool.images.shape[1:], *pool.counts.tolist()]
        how = [type(self).episodes.__qualname__, type(self)._draw.__qualname__]
        return [how, self.size(split), self.rotation_policy, shape, values]

    def notes(self) -> Sequence[str]:
        read = self._held.notes
        return (*self.__dict__.get("_found_notes", ()), *read)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.splits["train"].images.shape[1:])

    def reader(self, recorded: Manifest | None = None) -> Pictures:
        channels, side, _ = self.input_shape if recorded is None else cast(tuple[int, ...], recorded.input_shape)
        try:
            white = self._held.white
        except DataError:
            if recorded is None:
                raise
            white = FULL_RANGE
        return Pictures(
            side=side, channels=3 if channels == 3 else 1, fit=self.fit, inverted=self.inverted, range=white
        )

    @property
    def num_outputs(self) -> int:
        return self.way

    def size(self, split: Split) -> Size:
        if split != "train":
            return Size(self.way, self.shot, self.query_shot)
        return Size(
            self.way if self.train_way is None else self.train_way,
            self.shot if self.train_shot is None else self.train_shot,
            self.query_shot if self.train_query_shot is None else self.train_query_shot,
        )

    def num_classes(self, split: Split) -> int:
        return len(self.splits[split].names) * (4 if self.rotation_policy == "classes" else 1)

    def class_name(self, split: Split, class_id: int) -> str:
        names = self.splits[split].names
        quarter, place = divmod(class_id, len(names))
        return names[place] + (f", turned by {90 * quarter}°" if quarter else "")

    def episode(self, key: TaskKey) -> Episode:
        support, query = self.episodes([key])
        return Episode(one_task(support, 0), one_task(query, 0))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        split = keys[0].split
        if any(key.split != split for key in keys):
            raise ValueError("the keys of one batch of episodes must be of one split")
        way, shot, query_shot = self.size(split)
        pool = self.splits[split]
        class_id, picks, turns = self._draw(keys, pool, way, shot + query_shot)
        x = pool.images[pool.starts[class_id % len(pool.names)][..., None] + picks]
        for quarter in (1, 2, 3):
            turned = turns == quarter
            if turned.any():
                x[turned] = np.rot90(x[turned], quarter, axes=(-2, -1))
        x = self.changed(x, keys)
        return Episode(
            _examples(x[:, :, :shot], class_id),
            _examples(x[:, :, shot:], class_id),
        )

    def changed(self, x: NDArray[np.uint8], keys: Sequence[TaskKey]) -> NDArray[np.uint8]:
        """Images of episodes [T, ..., C, H, W] as the model is to see them; they are its own to change."""
        return x

    def _draw(
        self, keys: Sequence[TaskKey], pool: ClassImages, way: int, per_class: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Class ids [T, way], which of each class's images [T, way, per_class], and quarter turns [T, way].

        All draws of a task are uniform numbers taken at once, so they do not depend on numpy's version.
        """
        num_base = len(pool.names)
        num_classes = num_base * (4 if self.rotation_policy == "classes" else 1)
        u = uniforms(keys, way * (3 + 2 * per_class))
        u_classes, u_turns, u_images = u[:, : 2 * way], u[:, 2 * way : 3 * way], u[:, 3 * way :]
        class_id = distinct(u_classes, np.full(len(keys), num_classes))
        counts = pool.counts[class_id % num_base]
        picks = distinct(u_images.reshape(-1, 2 * per_class), counts.ravel()).reshape(len(keys), way, per_class)
        if self.rotation_policy == "episode":
            return class_id, picks, (u_turns * 4).astype(np.int64)
        return class_id, picks, class_id // num_base

    def check(self) -> None:
        self._require(SPLITS)

    def require(self, splits: Sequence[Split]) -> None:
        if type(self).check is not ImageTaskSet.check:  # a subclass knows more, and asks it of all splits
            self.check()
        else:
            self._require(splits)

    def _require(self, splits: Sequence[Split]) -> None:
        """Look at the files again; raises `DataError` unless each of `splits` has the classes and images it needs."""
        if "_received" not in self.__dict__:
            self._look()
            self._require_expected()
        for split in splits:
            self._require_classes(split, splits)
            self._require_images(split)

    def _require_expected(self) -> None:
        """In a process that reads the images itself: what the process that sent the task set has read."""
        expected = self.__dict__.get("_expected", {})
        other = [split for split, sha256 in expected.items() if self._files_sha256(split) != sha256]
        if other:
            raise DataError(
                f"the images of {' and '.join(other)} are not those that the run began with: other names or sizes were "
                "found by a worker. Give each host the same files, or send them from one (tasks.data ship)"
            )

    def _require_classes(self, split: Split, splits: Sequence[Split]) -> None:
        way, num_classes = self.size(split).way, self.num_classes(split)
        if num_classes < way:
            raise DataError(
                f"the {split} split has {num_classes} class{'es' * (num_classes != 1)}, but {way}-way episodes were "
                f"asked: {self._remedy_for_few_classes(split, splits)}"
            )

    def _remedy_for_few_classes(self, split: Split, splits: Sequence[Split]) -> str:
        return f"lower {self._option('way', split)} or give it more classes"

    def _require_images(self, split: Split) -> None:
        _, shot, query_shot = self.size(split)
        pool = self.splits[split]
        few = [f"{name} ({n})" for name, n in zip(pool.names, pool.counts, strict=True) if n < shot + query_shot]
        if few:
            raise DataError(
                f"{len(few)} of {len(pool.names)} classes of the {split} split have fewer images than the "
                f"{shot} support + {query_shot} query images an episode needs: {', '.join(few[:5])}"
                f"{', ...' if len(few) > 5 else ''}. Lower {self._option('shot', split)} or "
                f"{self._option('query_shot', split)}, {self._remedy_for_few_images(shot + query_shot)}"
            )

    def _remedy_for_few_images(self, needed: int) -> str:
        return "or give them more images"

    def _option(self, name: str, split: Split) -> str:
        """The option that decides `name` in `split`."""
        own = split == "train" and getattr(self, f"train_{name}") is not None
        return f"tasks.train_{name}" if own else f"tasks.{name}"


def _examples(x: NDArray[np.uint8], class_id: NDArray[np.int64]) -> Examples:
    """Images [T, way, shot, C, H, W] as examples [T, way * shot, ...] in [0, 1], class after class."""
    tasks, way, shot = x.shape[:3]
    bright = np.divide(x, 255, dtype=np.float32, order="C")  # one pass, where torch would copy, convert and divide
    flat = torch.from_numpy(bright.reshape(tasks, way * shot, *x.shape[3:]))
    y = torch.from_numpy(np.arange(way, dtype=np.int64).repeat(shot)).expand(tasks, -1)
    return Examples(flat, y, torch.from_numpy(class_id.repeat(shot, axis=1)))
