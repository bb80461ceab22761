"""What a task set is: a pure function from a task's key to its episode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from raymeta.errors import DataError
from raymeta.keys import Split, TaskKey

Goal = Literal["classification", "regression"]


class Examples(NamedTuple):
    """Inputs `x` [n, *feature] with targets `y`: ids in the task [n] (int64) or values [n, d].

    `class_id` [n] holds each example's class in its split, for methods that train on all classes at once.
    In a batch of episodes every tensor has a leading task dimension [T, n, ...].
    """

    x: Tensor
    y: Tensor
    class_id: Tensor | None = None


class Episode(NamedTuple):
    """A sampled task: n = way * shot support examples, way * query_shot query examples, disjoint."""

    support: Examples
    query: Examples


class Size(NamedTuple):
    """How large an episode is."""

    way: int
    shot: int
    query_shot: int


class TaskSet(ABC):
    """A distribution of tasks for each split.

    Laws: `episode` is pure (the same key gives the same episode in any process); support and query are disjoint;
    classes of different splits are disjoint; `episodes(keys)[i]` equals `episode(keys[i])` bit for bit. Episodes may be
    built by another thread than the one that computes, one call at a time, and those of later steps before they come.
    """

    goal: ClassVar[Goal]

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (channels, height, width) in [0, 1] for images."""

    @abstractmethod
    def size(self, split: Split) -> Size:
        """Episode size in `split`: training may differ from validation and test."""

    @abstractmethod
    def num_classes(self, split: Split) -> int:
        """Classes in `split` (0 for regression); `Examples.class_id` is below it."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Outputs a predictor needs at test: the way, or the dimension of a regression target."""

    @abstractmethod
    def episode(self, key: TaskKey) -> Episode:
        """The episode of `key`, without a task dimension."""

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        """The episodes of `keys` stacked along a leading task dimension."""
        return stack_episodes([self.episode(key) for key in keys])

    def check(self) -> None:
        """Load what is needed and raise `DataError` if an episode of the asked size cannot be drawn."""

    def to_send(self) -> object:
        """The loaded data if another process should receive them, as arrays; None where it makes or reads its own."""
        return None

    def receive(self, data: object) -> None:
        """Take what `to_send` gave in another process, which is read-only here, in place of loading."""
        raise TypeError(f"{type(self).__name__} sends no data, so it can receive none")


def stack_episodes(episodes: Sequence[Episode]) -> Episode:
    """Stack episodes of equal shapes along a leading task dimension."""

    def stack(side: Sequence[Examples]) -> Examples:
        ids = [examples.class_id for examples in side if examples.class_id is not None]
        if 0 < len(ids) < len(side):
            raise DataError("some episodes of this task set have a class_id, others have none: all or none should")
        return Examples(
            torch.stack([examples.x for examples in side]),
            torch.stack([examples.y for examples in side]),
            torch.stack(ids) if ids else None,
        )

    return Episode(stack([e.support for e in episodes]), stack([e.query for e in episodes]))


def one_task(examples: Examples, t: int) -> Examples:
    """The examples of task `t` of a batch, without the task dimension."""
    return Examples(examples.x[t], examples.y[t], None if examples.class_id is None else examples.class_id[t])
