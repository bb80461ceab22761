"""What a task set is: a pure function from a task's key to its episode."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch

from raymeta.keys import SPLITS, Split, TaskKey
from raymeta.tasks.episodes import Episode, Size, stack_episodes, tensors
from raymeta.tasks.inputs import Shape
from raymeta.tasks.manifest import Contents, Manifest
from raymeta.tasks.objective import Objective
from raymeta.tasks.reader import Reader

Goal = Literal["classification", "regression"]


class TaskSet(ABC):
    """A distribution of tasks for each split.

    Laws: `episode` is pure (the same key gives the same episode in any process); support and query are disjoint;
    classes of different splits are disjoint; `episodes(keys)[i]` equals `episode(keys[i])` bit for bit. Episodes may be
    built by another thread than the one that computes, one call at a time, and those of later steps before they come.
    """

    goal: ClassVar[Goal]
    unit: ClassVar[str] = "examples"
    """what `Contents` counts: images, rows, texts"""
    one_problem: ClassVar[bool] = False
    """whether tasks are batches of one training problem: a label means the same class in every task, and a support set
    need not show each; for methods that train one model (`TrainedModel`)"""

    @property
    @abstractmethod
    def input_shape(self) -> Shape:
        """Shape of one input: (channels, height, width) in [0, 1] for images; by name where there are several."""

    @abstractmethod
    def size(self, split: Split) -> Size:
        """Episode size in `split`: training may differ from validation and test."""

    def size_at(self, split: Split, step: int) -> Size:
        """Episode size in `split` at outer step `step`, for task sets that draw it anew for each step.

        `size` is then the largest. All tasks of a step have one size.
        """
        return self.size(split)

    def num_episodes(self, split: Split) -> int | None:
        """Episodes that there are in `split`, which are then all scored, once; None where they are drawn."""
        return None

    @abstractmethod
    def num_classes(self, split: Split) -> int:
        """Classes in `split` (0 for regression); `Examples.class_id` is below it."""

    def class_name(self, split: Split, class_id: int) -> str | None:
        """What people call the class `class_id` of `split`, such as its folder; None where it has no name."""
        return None

    def label_names(self, recorded: Manifest | None = None) -> Sequence[str] | None:
        """What labels 0, 1, ... are called, where they mean the same in every task and all have a name.

        With what a run `recorded`, the data need not be here, as far as a task set knows names from that.
        """
        if not self.one_problem or self.goal != "classification":
            return None
        names = [self.class_name("train", label) for label in range(self.num_classes("train"))]
        found = [name for name in names if name is not None]
        return found if len(found) == len(names) else None

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Outputs a predictor needs at test: the way, or the dimension of a regression target."""

    def objective(self) -> Objective | None:
        """The function that every episode is, where tasks are functions to be minimised; None where a model learns."""
        return None

    @abstractmethod
    def episode(self, key: TaskKey) -> Episode:
        """The episode of `key`, without a task dimension."""

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        """The episodes of `keys` stacked along a leading task dimension."""
        return stack_episodes([self.episode(key) for key in keys])

    def check(self) -> None:
        """Load what is needed and raise `DataError` if an episode of the asked size cannot be drawn."""

    def require(self, splits: Sequence[Split]) -> None:
        """`check` for a run that draws episodes of `splits` only; the others may be empty."""
        self.check()

    def contents(self, split: Split) -> Contents:
        """What `split` holds, for a run to remember and to be told when it changes.

        By default a hash over the first episode, its values rounded so that another processor gives the same one. A
        task set that reads files says which: see `raymeta.tasks.manifest.contents_of_files`.
        """
        return Contents({}, _first_episode_sha256(self.episode(TaskKey(0, split, 0, 0))), self.num_classes(split))

    def manifest(self, splits: Sequence[Split] = SPLITS) -> Manifest:
        """What a run of `splits` remembers of its data. Raises `DataError` where they cannot be read."""
        kind = f"{type(self).__module__}:{type(self).__qualname__}"
        contents = {split: self.contents(split) for split in SPLITS if split in splits}
        return Manifest(kind, self.unit, self.input_shape, contents, tuple(self.notes()))

    def notes(self) -> Sequence[str]:
        """What a person should know of how the data were read, such as files that were passed over."""
        return ()

    def drawn_from(self, split: Split) -> object:
        """Besides its key, what determines an episode of `split`: equal for equal data, wherever they lie.

        A value that JSON can hold. Fields called `root` and `data` say where, and those called `train_...` say nothing
        about other splits.
        """
        fields: Sequence[dataclasses.Field[Any]] = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        names = [f.name for f in fields if f.name not in ("root", "data") and not f.name.startswith("train_")]
        options = {name: repr(getattr(self, name)) for name in names}
        return [type(self).__qualname__, options, self.size(split), self.contents(split).sha256]

    def keeping(self, recorded: Manifest) -> TaskSet:
        """This task set with what `recorded` tells and the options leave open, such as the side of images."""
        return self

    def keeping_classes(self, recorded: Manifest) -> TaskSet:
        """This task set with the classes of each split that `recorded` tells, where it can choose classes by name."""
        return self

    def reader(self, recorded: Manifest | None = None) -> Reader | None:
        """What turns examples of somebody else's into inputs like these; None where nothing is known of that.

        With what a run `recorded`, the data need not be here.
        """
        return None

    def to_send(self) -> object:
        """The loaded data if another process should receive them, as arrays; None where it makes or reads its own."""
        return None

    def receive(self, data: object) -> None:
        """Take what `to_send` gave in another process, which is read-only here, in place of loading."""
        raise TypeError(f"{type(self).__name__} sends no data, so it can receive none")


def _first_episode_sha256(episode: Episode) -> str:
    """A hash over shapes and values, the floating ones to three digits."""
    digest = hashlib.sha256()
    for value in tensors(episode):
        digest.update(repr((tuple(value.shape), value.dtype)).encode())
        plain: Any = torch.view_as_real(value) if value.is_complex() else value
        plain = plain.detach().cpu().to(torch.bfloat16).float() if plain.is_floating_point() else plain.cpu()
        digest.update(plain.contiguous().numpy().tobytes())
    return digest.hexdigest()
