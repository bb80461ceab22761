"""Tasks that a function of one's own makes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, cast

from pydantic import NonNegativeInt
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split, TaskKey
from raymeta.options import IMPORTED, STRICT
from raymeta.system.their_code import imported
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Size
from raymeta.tasks.inputs import Shape, shape_of


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FunctionTasks(TaskSet):
    """The episodes that a function makes of their keys; the same key must give the same episode.

    Shapes, sizes and the goal are those of the first episode of each split: targets that are floats make it regression.
    """

    path: Annotated[str, IMPORTED]
    """`package.module:function`, importable where training runs; it takes a TaskKey and returns an Episode"""
    classes: NonNegativeInt = 0
    """classes of the training split, for methods that train on all at once; `class_id` is below it"""

    @cached_property
    def _function(self) -> Callable[[TaskKey], Any]:
        return cast(Callable[[TaskKey], Any], imported(self.path, "tasks.path"))

    @cached_property
    def _first(self) -> dict[Split, Episode]:
        return {split: self.episode(TaskKey(0, split, 0, 0)) for split in SPLITS}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_first"}

    @property
    def goal(self) -> Goal:  # type: ignore[override]
        return "regression" if self._first["train"].support.y.is_floating_point() else "classification"

    @property
    def input_shape(self) -> Shape:
        return shape_of(self._first["train"].support.x)

    @property
    def num_outputs(self) -> int:
        if self.goal == "classification":
            return self.size("test").way
        y = self._first["test"].support.y
        return y.shape[1] if y.dim() > 1 else 1

    def num_classes(self, split: Split) -> int:
        return self.classes

    def size(self, split: Split) -> Size:
        support, query = (len(side.y) for side in self._first[split])
        way = 1 if self.goal == "regression" else int(self._first[split].support.y.max()) + 1
        return Size(way, -(-support // way), -(-query // way))

    def episode(self, key: TaskKey) -> Episode:
        found = self._function(key)
        if not isinstance(found, Episode):
            raise DataError(f"{self.path} gave a {type(found).__name__} for {key}, and an Episode is needed")
        return found
