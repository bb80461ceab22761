"""Episodes drawn from examples of any kind in groups: the common part of tables, texts and arrays.

A group is a class that is sampled into tasks, or a whole task: with targets (regression), or with labels that all tasks
share.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split, TaskKey, uniforms
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, one_task
from raymeta.tasks.grouped.pools import Arrays, Loaded, Pool, shape_of_arrays, taken
from raymeta.tasks.grouped.sorting import Encoded, Rows, labels_of, places_of, pools_of
from raymeta.tasks.grouped.splits import by_column, by_lists, by_ratio
from raymeta.tasks.held import Held
from raymeta.tasks.images.splits import ClassSplits, Share, require_whole, shares_for
from raymeta.tasks.inputs import Inputs, Shape
from raymeta.tasks.manifest import ClassContents, Contents, Manifest, sha256_of
from raymeta.tasks.reader import Reader
from raymeta.tasks.recorded import reader_from

_HELD: Held[Loaded] = Held()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Grouped(TaskSet):
    """Examples in groups, held once per process. A subclass says where they come from and how they become inputs."""

    unit: ClassVar[str] = "rows"

    way: int = Field(default=5, ge=2)
    """classes in an episode; without effect where tasks are given"""
    shot: PositiveInt = 5
    """support examples per class; of a task with targets, in all"""
    query_shot: PositiveInt = 5
    """query examples per class; of a task with targets, in all"""
    train_way: int | None = Field(default=None, ge=2)
    """classes in a training episode; the same as `way` unless given"""
    train_shot: PositiveInt | None = None
    """support examples per class in training; the same as `shot` unless given"""
    train_query_shot: NonNegativeInt | None = None
    """query examples per class in training; the same as `query_shot` unless given"""
    split_ratio: tuple[Share, Share, Share] = (0.64, 0.16, 0.20)
    """shares of the classes (or tasks) for train, val and test; validation and test are rounded to whole ones"""
    split_seed: int = Field(default=0, ge=0, lt=2**64)
    """which classes (or tasks) a cut by ratio gives to each split"""
    train_classes: tuple[str, ...] = ()
    """names of the classes (or tasks) to train on; with val_classes and test_classes, in place of split_ratio"""
    val_classes: tuple[str, ...] = ()
    """names of the classes (or tasks) to choose checkpoints by"""
    test_classes: tuple[str, ...] = ()
    """names of the classes (or tasks) to report on"""
    min_examples: PositiveInt | None = None
    """leave out classes (or tasks) with fewer examples, and list them; by default those that an episode does not fit"""

    @model_validator(mode="after")
    def _split_is_whole(self) -> Self:
        require_whole(self.split_ratio, self._listed())
        return self

    def _listed(self) -> ClassSplits:
        return {"train": list(self.train_classes), "val": list(self.val_classes), "test": list(self.test_classes)}

    # What a subclass says.

    @property
    def has_tasks(self) -> bool:
        """Whether each group is a task of its own, and no class."""
        return False

    @abstractmethod
    def stamp(self) -> str:
        """Another text whenever the source is replaced. Raises `DataError` where it is missing."""

    @abstractmethod
    def rows(self) -> Rows:
        """Read the source. Raises `DataError` naming file and row."""

    @abstractmethod
    def fit(self, rows: Rows, train: list[int]) -> Reader | None:
        """How examples become inputs, by the training rows alone."""

    @abstractmethod
    def encode(self, rows: Rows, reader: Reader | None) -> Encoded:
        """All rows as inputs. Raises `DataError` naming the row."""

    @abstractmethod
    def raw(self, rows: Rows, places: list[int]) -> bytes:
        """The rows in these places as they were given, the same on any machine."""

    def load_notes(self, rows: Rows, reader: Reader | None) -> list[str]:
        """What a person should know besides of how the rows were read."""
        return []

    # What is held.

    @property
    def loaded(self) -> Loaded:
        """All examples, loaded on first use and kept as they are until the next `check`."""
        held: Loaded | None = self.__dict__.get("_data")
        return self._look() if held is None else held

    def _look(self) -> Loaded:
        stamp, source = self.stamp(), self._source
        held = _HELD.get(source, stamp)
        if held is None:
            held = self._load()
            _HELD.keep(source, stamp, held)
        self.__dict__["_data"] = held
        return held

    @property
    def _source(self) -> tuple[object, ...]:
        kept = self.__dict__.get("_kept")
        values = [(f.name, repr(getattr(self, f.name))) for f in dataclasses.fields(self)]
        return (type(self), None if kept is None else sha256_of(kept.to_json()), *values)

    def _load(self) -> Loaded:
        rows = self.rows()
        places = places_of(rows.groups)
        chosen = self._chosen(places, rows)
        train = [place for name in chosen["train"] for place in places[name]]
        if not train:
            raise DataError(f"{rows.where}: no {self.word} is for training")
        reader = self.__dict__.get("_kept") or self.fit(rows, sorted(train))
        labels = labels_of(rows, train)
        pools, few = pools_of(
            rows, self.encode(rows, reader), chosen, labels, self._least, partial(self.raw, rows), self.word
        )
        return Loaded(pools, labels, reader, (*self.load_notes(rows, reader), *few))

    def _chosen(self, places: dict[str, list[int]], rows: Rows) -> ClassSplits:
        if self.train_classes:
            return by_lists(self._listed(), places, rows.where)
        if rows.splits is not None:
            return by_column(places, rows.splits, rows.where)
        return by_ratio(places, self.split_ratio, self.split_seed)

    def _least(self, split: Split) -> int:
        return self.min_examples or sum(self._shots(split))

    @property
    def word(self) -> str:
        """What groups are called."""
        return "tasks" if self.has_tasks else "classes"

    def __getstate__(self) -> dict[str, Any]:
        """Examples do not travel with the task set."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_data", "_received")}

    def to_send(self) -> object:
        return self.loaded

    def receive(self, data: object) -> None:
        self.__dict__["_data"] = cast(Loaded, data)
        self.__dict__["_received"] = True

    # What a run remembers.

    def contents(self, split: Split) -> Contents:
        pool = self.loaded.splits[split]
        rows = zip(pool.names, pool.examples().tolist(), pool.marks, strict=True)
        classes = {name: ClassContents(count, values=mark) for name, count, mark in rows}
        return Contents(classes, sha256_of([[name, *one] for name, one in classes.items()]), len(classes))

    def manifest(self, splits: Sequence[Split] = SPLITS) -> Manifest:
        found = super().manifest([split for split in SPLITS if split in splits or self.loaded.splits[split].names])
        reader = self.loaded.reader
        return dataclasses.replace(found, preprocessing=None if reader is None else reader.to_json())

    def drawn_from(self, split: Split) -> object:
        reader, contents = self.loaded.reader, self.contents(split)
        how = None if reader is None else sha256_of(reader.to_json())
        return [type(self).__qualname__, self.goal, self.has_tasks, self.size(split), contents.sha256, how]

    def notes(self) -> Sequence[str]:
        return self.loaded.notes

    def reader(self, recorded: Manifest | None = None) -> Reader | None:
        if recorded is not None and recorded.preprocessing is not None:
            return reader_from(recorded.preprocessing)
        return self.loaded.reader

    def keeping(self, recorded: Manifest) -> Self:
        """With the normalisation and the vocabulary of the run."""
        if recorded.preprocessing is None:
            return self
        return self._remade({}, reader_from(recorded.preprocessing))

    def keeping_classes(self, recorded: Manifest) -> Self:
        lists = {f"{split}_classes": tuple(content.classes) for split, content in recorded.splits.items()}
        return self._remade(lists, self.__dict__.get("_kept"))

    def _remade(self, changes: dict[str, Any], kept: Reader | None) -> Self:
        other = dataclasses.replace(self, **changes)
        if kept is not None:
            other.__dict__["_kept"] = kept
        return other

    # Episodes.

    @property
    def input_shape(self) -> Shape:
        return shape_of_arrays(self.loaded.splits["train"].x)

    @property
    def num_outputs(self) -> int:
        if self.goal == "regression":
            y = self.loaded.splits["train"].y
            return 1 if y is None else y.shape[1]
        return len(self.loaded.labels) if self.has_tasks else self.way

    def size(self, split: Split) -> Size:
        if self.has_tasks:
            return Size(1 if self.goal == "regression" else len(self.loaded.labels), *self._shots(split))
        way = self.train_way if split == "train" and self.train_way is not None else self.way
        return Size(way, *self._shots(split))

    def _shots(self, split: Split) -> tuple[int, int]:
        if split != "train":
            return self.shot, self.query_shot
        shot = self.shot if self.train_shot is None else self.train_shot
        return shot, self.query_shot if self.train_query_shot is None else self.train_query_shot

    def num_classes(self, split: Split) -> int:
        if self.has_tasks:
            return 0 if self.goal == "regression" else len(self.loaded.labels)
        return len(self.loaded.splits[split].names)

    def class_name(self, split: Split, class_id: int) -> str:
        return self.loaded.labels[class_id] if self.has_tasks else self.loaded.splits[split].names[class_id]

    def episode(self, key: TaskKey) -> Episode:
        support, query = self.episodes([key])
        return Episode(one_task(support, 0), one_task(query, 0))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        split, loaded = keys[0].split, self.loaded
        if any(key.split != split for key in keys):
            raise ValueError("the keys of one batch of episodes must be of one split")
        groups, labels = (1, max(len(loaded.labels), 1)) if self.has_tasks else (self.size(split).way, 1)
        _, shot, query_shot = self.size(split)
        u = uniforms(keys, 2 * groups + 2 * groups * labels * (shot + query_shot))
        pool = loaded.splits[split]
        chosen, rows = pool.draw(u, groups, labels)
        ids = np.tile(np.arange(labels), (len(keys), 1)) if self.has_tasks else chosen
        return Episode(*(self._side(pool, part, ids) for part in (rows[..., :shot], rows[..., shot:])))

    def _side(self, pool: Pool, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> Examples:
        """Rows [T, way, each] as examples [T, way * each, ...], class after class."""
        each = rows.shape[-1]
        flat = rows.reshape(len(rows), -1)
        x = _tensors(taken(pool.x, flat))
        if pool.y is not None:
            return Examples(x, torch.from_numpy(pool.y[flat]))
        y = torch.arange(ids.shape[1]).repeat_interleave(each).expand(len(rows), -1)
        return Examples(x, y, torch.from_numpy(ids.repeat(each, axis=1)))

    # The dry run.

    def check(self) -> None:
        self.require(SPLITS)

    def require(self, splits: Sequence[Split]) -> None:
        if "_received" not in self.__dict__:
            self._look()
        for split in splits:
            self._require_groups(split)

    def _more(self) -> str:
        """How a split gets more classes or tasks."""
        if self._listed():
            return "its list"
        count = sum(len(self.loaded.splits[split].names) for split in SPLITS)
        shares = shares_for(count, {split: 1 if self.has_tasks else self.size(split).way for split in SPLITS})
        if shares is None:
            return f"there are {count}, too few for any cut"
        return f"--tasks.split_ratio {','.join(f'{share:g}' for share in shares)}"

    def _require_groups(self, split: Split) -> None:
        pool, needed = self.loaded.splits[split], 1 if self.has_tasks else self.size(split).way
        if len(pool.names) < needed:
            raise DataError(
                f"the {split} split has {len(pool.names)} {self.word} with enough examples, and {needed} are needed: "
                f"lower tasks.way, tasks.shot or tasks.query_shot, or give it more ({self._more()})"
            )
        _, shot, query_shot = self.size(split)
        if int(pool.counts().min()) < shot + query_shot:
            raise DataError(
                f"some {self.word} of the {split} split have fewer than the {shot} support + {query_shot} query "
                "examples an episode needs: leave out or raise tasks.min_examples"
            )


def _tensors(x: Arrays) -> Inputs:
    if isinstance(x, dict):
        return {name: torch.from_numpy(value) for name, value in x.items()}
    return torch.from_numpy(x)
