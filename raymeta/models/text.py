"""A small encoder of texts: embeddings of tokens, then means, transformer layers or an LSTM."""

from __future__ import annotations

import dataclasses
from typing import Literal, Self

import torch
from pydantic import NonNegativeInt, PositiveInt, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.layers.norm import name_norms
from raymeta.models.layers.sequence import LSTMLayer, TransformerLayer, WeightedMean, masked_mean
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.inputs import Shape

Encoder = Literal["mean", "transformer", "lstm"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TextModel(ModelSpec):
    """Tokens and mask to features of a text; the mean over its tokens, or the last state of an LSTM."""

    encoder: Encoder = "mean"
    """`mean` of the embeddings with a learned weight for each token, then hidden layers; `transformer` or `lstm` layers
    over the tokens"""
    width: PositiveInt = 256
    """values of an embedding and of each layer"""
    depth: NonNegativeInt | None = None
    """hidden, transformer or LSTM layers; unless given none after a mean, and one of the others"""
    heads: PositiveInt = 4
    """of a transformer layer; they divide the width"""
    vocabulary: PositiveInt | None = None
    """number of token ids; what the task set says unless given"""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.encoder == "transformer" and self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        return self

    def fitted(self, tasks: TaskSet) -> Self:
        if self.vocabulary is not None:
            return self
        count = getattr(tasks.reader(), "num_tokens", None)
        return self if count is None else dataclasses.replace(self, vocabulary=count)

    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        if not isinstance(input_shape, dict) or set(input_shape) != {"tokens", "mask"}:
            raise ConfigError("model text takes tokens and a mask, as --tasks text gives them: use another model")
        if self.vocabulary is None:
            raise ConfigError("model.vocabulary is not given, and the task set does not say how many token ids it has")
        model = TextNetwork(self, self.vocabulary, input_shape["tokens"][0], num_outputs)
        name_norms(model)
        return model


class TextNetwork(nn.Module):
    """tokens and mask [n, L] to outputs [n, num_outputs], or features [n, width]."""

    def __init__(self, spec: TextModel, vocabulary: int, length: int, num_outputs: int | None) -> None:
        super().__init__()
        self.encoder = spec.encoder
        self.embedding = nn.Embedding(vocabulary, spec.width)
        if spec.encoder == "transformer":
            self.places = nn.Parameter(0.02 * torch.randn(length, spec.width))
        if spec.encoder == "mean":
            self.mean = WeightedMean(vocabulary, spec.width)
        depth = (0 if spec.encoder == "mean" else 1) if spec.depth is None else spec.depth
        self.layers = nn.ModuleList(_layer(spec) for _ in range(depth))
        self.head = nn.Identity() if num_outputs is None else nn.Linear(spec.width, num_outputs)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.head(self._features(tokens, mask.bool()))
        return out

    def _features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        z: Tensor = self.embedding(tokens)
        if self.encoder == "mean":
            z = self.mean(z, tokens, mask)
            for layer in self.layers:
                z = z + torch.tanh(layer(z))
            return z
        z = z + self.places if self.encoder == "transformer" else z
        for layer in self.layers:
            z = layer(z, mask)
        return z[:, -1] if self.encoder == "lstm" and len(self.layers) else masked_mean(z, mask)


def _layer(spec: TextModel) -> nn.Module:
    if spec.encoder == "transformer":
        return TransformerLayer(spec.width, spec.heads)
    return LSTMLayer(spec.width, spec.width) if spec.encoder == "lstm" else nn.Linear(spec.width, spec.width)
