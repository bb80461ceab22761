"""A task set whose inputs are token ids and a mask, and a model that takes both by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

import raymeta
from raymeta.models.base import ModelSpec
from raymeta.tasks.episodes import Episode, Examples, Size

WORDS, LENGTH, WAY = 12, 5, 3
SHAPES = {"tokens": (LENGTH,), "mask": (LENGTH,)}


@dataclass(frozen=True, kw_only=True)
class Sentences(raymeta.TaskSet):
    """Each class has a favourite word, which half of the words of its sentences are; lengths differ."""

    goal, num_outputs, input_shape = "classification", WAY, SHAPES

    def size(self, split: str) -> Size:
        return Size(WAY, 2, 4)

    def num_classes(self, split: str) -> int:
        return WORDS

    def episode(self, key: raymeta.TaskKey) -> Episode:
        draws = key.generator("episode")
        classes = draws.choice(WORDS, WAY, replace=False)
        return Episode(_side(draws, classes, 2), _side(draws, classes, 4))


def _side(draws: np.random.Generator, classes: Any, per_class: int) -> Examples:
    y = np.tile(np.arange(WAY), per_class)
    tokens = draws.integers(WORDS, size=(len(y), LENGTH))
    tokens = np.where(draws.random(tokens.shape) < 0.5, classes[y][:, None], tokens)
    mask = np.arange(LENGTH) < draws.integers(1, LENGTH + 1, size=(len(y), 1))
    inputs = {"tokens": torch.from_numpy(tokens), "mask": torch.from_numpy(mask)}
    return Examples(inputs, torch.from_numpy(y), torch.from_numpy(classes[y]))


class Words(nn.Module):
    """The mean of the embeddings of the words that the mask keeps, a hidden layer, a head."""

    def __init__(self, num_outputs: int | None = WAY, *, norm: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6)
        self.hidden = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.head = nn.Identity() if num_outputs is None else nn.Linear(8, num_outputs)

    def forward(self, mask: Tensor, tokens: Tensor) -> Tensor:
        kept = mask.to(self.hidden.weight.dtype)[..., None]
        z = (self.embed(tokens) * kept).sum(1) / kept.sum(1)
        out: Tensor = self.head(torch.tanh(self.norm(self.hidden(z))))
        return out


@dataclass(frozen=True, kw_only=True)
class WordModel(ModelSpec):
    norm: bool = False

    def build(self, input_shape: Any, num_outputs: int | None) -> nn.Module:
        return Words(num_outputs, norm=self.norm)
