"""The networks of `wild_models` in whole runs: a task set and a model specification with import paths of their own."""

from __future__ import annotations

import torch
import wild_models
from pydantic.dataclasses import dataclass
from torch import nn

import raymeta
from raymeta.models.base import ModelSpec
from raymeta.tasks.episodes import Episode, Size

BY_NAME = {wild.name: wild for wild in wild_models.MODELS}


@dataclass(frozen=True, kw_only=True)
class WildTasks(raymeta.TaskSet):
    """Episodes that a network of the list takes."""

    kind: str
    goal, num_outputs = "classification", wild_models.WAY

    @property
    def input_shape(self) -> tuple[int, ...]:
        kind = BY_NAME[self.kind].input
        return (kind[1],) if kind[0] == "tokens" else kind

    def size(self, split: str) -> Size:
        return Size(wild_models.WAY, wild_models.PER_CLASS, wild_models.PER_CLASS)

    def num_classes(self, split: str) -> int:
        return 30

    def episode(self, key: raymeta.TaskKey) -> Episode:
        (episode,) = wild_models.episodes(BY_NAME[self.kind].input, 1, key.torch_seed() % 2**31)
        return episode


@dataclass(frozen=True, kw_only=True)
class WildModel(ModelSpec):
    """A network of the list."""

    which: str

    def build(self, input_shape: tuple[int, ...], num_outputs: int | None) -> nn.Module:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return BY_NAME[self.which].make()
        finally:
            torch.set_default_dtype(before)
