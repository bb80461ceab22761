"""What a trained model remembers of its data: everything that building and adapting it needs, and no episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split, TaskKey
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size
from raymeta.tasks.images.pictures import Pictures
from raymeta.tasks.inputs import Inputs, Shape, tensors_of
from raymeta.tasks.manifest import Manifest
from raymeta.tasks.reader import Reader
from raymeta.tasks.tables.columns import Columns
from raymeta.tasks.tables.own_columns import OwnColumns
from raymeta.tasks.text.tokenizer import Tokenizer
from raymeta.tasks.text.words import Words

READERS: dict[str, type[Reader]] = {reader.kind: reader for reader in (Pictures, Columns, OwnColumns, Words, Tokenizer)}
"""By the names that stand in files."""
Kind = Literal["classification", "regression"]
Sizes = dict[Split, tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]]
_ONE = "x"
"""What the type of an only input is called."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recorded(TaskSet):
    """Shapes, sizes and preprocessing of the data that a model was trained on; it draws no episodes to learn from."""

    kind: Kind = "classification"
    """classification or regression"""
    shape: tuple[PositiveInt, ...] | dict[str, tuple[PositiveInt, ...]] = ()
    """shape of an input, or of several by name"""
    outputs: PositiveInt = 1
    """outputs that a predictor needed"""
    sizes: Sizes = Field(default_factory=dict)
    """way, shot and query shot of each split"""
    classes: dict[Split, NonNegativeInt] = Field(default_factory=dict)
    """classes of each split"""
    labels: tuple[str, ...] = ()
    """what labels are called, where they mean the same in every task"""
    types: dict[str, Literal["float", "int64", "bool"]] = Field(default_factory=dict)
    """of inputs that are no floats, by name"""
    preprocessing: dict[str, Any] | None = None
    """how an example becomes an input: kind and settings of its reader"""

    @property
    def goal(self) -> Goal:  # type: ignore[override]
        return self.kind

    @property
    def input_shape(self) -> Shape:
        return self.shape

    @property
    def num_outputs(self) -> int:
        return self.outputs

    def size(self, split: Split) -> Size:
        return Size(*self.sizes[split])

    def num_classes(self, split: Split) -> int:
        return self.classes.get(split, 0)

    def label_names(self, recorded: Manifest | None = None) -> Sequence[str] | None:
        return self.labels or None

    def episode(self, key: TaskKey) -> Episode:
        """Two examples of each class with random inputs, to see what a network does with such; nothing to learn."""
        size = self.size(key.split)
        way = size.way if self.kind == "classification" else 1
        generator = torch.Generator().manual_seed(key.torch_seed() % 2**31)
        y = torch.arange(way).repeat(2) if self.kind == "classification" else torch.zeros(4, self.outputs)
        return Episode(*(Examples(self._inputs(len(y), generator), y, y if y.dim() == 1 else None) for _ in range(2)))

    def _inputs(self, count: int, generator: torch.Generator) -> Inputs:
        def some(name: str, shape: tuple[int, ...]) -> Tensor:
            kind = self.types.get(name, "float")
            if kind == "float":
                return torch.rand(count, *shape, generator=generator)
            return torch.ones(count, *shape, dtype=torch.bool if kind == "bool" else torch.int64)

        if isinstance(self.shape, tuple):
            return some(_ONE, self.shape)
        return {name: some(name, one) for name, one in self.shape.items()}

    def reader(self, recorded: Manifest | None = None) -> Reader | None:
        """Raises `DataError` for preprocessing that is not known here."""
        if self.preprocessing is None:
            return None
        return reader_from(self.preprocessing)


def reader_from(preprocessing: dict[str, Any]) -> Reader:
    """What `Reader.to_json` gave. Raises `DataError` for anything else."""
    settings = {name: value for name, value in preprocessing.items() if name != "kind"}
    kind = preprocessing.get("kind")
    try:
        return READERS[str(kind)](**settings)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"the preprocessing {kind!r} of this model is not known or damaged: {error}"[:300]) from error


def recorded(tasks: TaskSet, manifest: Manifest | None = None) -> Recorded:
    """What `tasks` are, as far as a model needs; of a run's data that are not here, what its `manifest` says.

    Raises `DataError` where neither the data nor a manifest is there.
    """
    if isinstance(tasks, Recorded):
        return tasks
    shape = tasks.input_shape if manifest is None else manifest.input_shape
    return Recorded(
        kind=tasks.goal,
        shape=shape,
        outputs=_num_outputs(tasks, manifest),
        sizes=_sizes(tasks, manifest),
        classes=_num_classes(tasks, manifest),
        labels=_labels(tasks, manifest),
        types=_types(tasks),
        preprocessing=_preprocessing(tasks, manifest),
    )


def _num_outputs(tasks: TaskSet, manifest: Manifest | None) -> int:
    return len(_labels(tasks, manifest)) or tasks.num_outputs


def _sizes(tasks: TaskSet, manifest: Manifest | None) -> Sizes:
    """Of one training problem, whose tasks are batches, one example stands for those of a class: no data are needed."""
    if labels := _labels(tasks, manifest):
        return dict.fromkeys(SPLITS, (len(labels), 1, 1))
    return {split: (size.way, size.shot, size.query_shot) for split in SPLITS for size in [tasks.size(split)]}


def _labels(tasks: TaskSet, manifest: Manifest | None) -> tuple[str, ...]:
    return tuple(tasks.label_names(manifest) or ())


def _num_classes(tasks: TaskSet, manifest: Manifest | None) -> dict[Split, int]:
    if manifest is None:
        return {split: tasks.num_classes(split) for split in SPLITS}
    return {split: contents.num_classes for split, contents in manifest.splits.items()}


def _types(tasks: TaskSet) -> dict[str, Literal["float", "int64", "bool"]]:
    """By a look at an episode; floats where the data are not here."""
    try:
        episode = tasks.episode(TaskKey(0, "train", 0, 0))
    except (DataError, OSError):
        return {}
    named = episode.support.x.items() if isinstance(episode.support.x, dict) else tensors_of(episode.support.x, _ONE)
    kinds: dict[torch.dtype, Literal["int64", "bool"]] = {torch.int64: "int64", torch.bool: "bool"}
    return {name: kinds[value.dtype] for name, value in named if value.dtype in kinds}


def _preprocessing(tasks: TaskSet, manifest: Manifest | None) -> dict[str, Any] | None:
    reader = tasks.reader(manifest)
    return None if reader is None else reader.to_json()
