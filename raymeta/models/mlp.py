"""Multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace
from typing import Literal, Self

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import nn

from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.layers.norm import make_norm, name_norms
from raymeta.models.shapes import require_images, require_one
from raymeta.options import STRICT
from raymeta.tasks.inputs import Shape

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MLP(ModelSpec):
    """Fully connected layers on flattened inputs; the default is MAML's sinusoid network 1-40-40-1.

    MAML's Omniglot network without convolutions is `hidden=(256, 128, 64, 64), norm="batch"`.
    """

    hidden: tuple[PositiveInt, ...] = (40, 40)
    """sizes of the hidden layers; none gives a linear model"""
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    """after each hidden layer; `tanh` is smooth, for checks by finite differences"""
    norm: Literal["batch", "layer", "none"] = "none"
    """between a hidden layer, then without bias, and its activation"""
    init: Literal["default", "truncated_normal"] = "default"
    """torch's own, or MAML's: weights N(0, 0.01²) cut at two standard deviations, zero biases"""
    shrink: PositiveInt = 1
    """side of the squares of pixels whose mean the network sees in their place, for images"""

    def resized(self, width: int | None, depth: int | None) -> Self:
        sizes = self.hidden if width is None else (width,) * len(self.hidden)
        if depth is not None:
            sizes = tuple(self.hidden[-1:] if width is None else (width,)) * depth
        if not sizes and (width or depth):
            raise ConfigError("mlp without hidden layers has no sizes to take over: give both a width and a depth")
        return replace(self, hidden=sizes)

    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if self.shrink > 1:
            channels, *sides = require_images("mlp with shrink", input_shape)
            input_shape = (channels, *(side // self.shrink for side in sides))
            if not all(input_shape):
                raise ConfigError(f"model.shrink {self.shrink} is more than images of {sides} pixels have: lower it")
            layers["shrink"] = nn.AvgPool2d(self.shrink)
        layers["flatten"] = nn.Flatten()
        width = math.prod(require_one("mlp", input_shape))
        for i, size in enumerate(self.hidden, start=1):
            layers[f"linear{i}"] = nn.Linear(width, size, bias=self.norm == "none")
            layers[f"norm{i}"] = make_norm(self.norm, size, groups=1)
            layers[f"{self.activation}{i}"] = _ACTIVATIONS[self.activation]()
            width = size
        layers["head"] = nn.Identity() if num_outputs is None else nn.Linear(width, num_outputs)
        model = nn.Sequential(layers)
        if self.init == "truncated_normal":
            model.apply(_truncated_normal)
        name_norms(model)
        return model


def _truncated_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.01, a=-0.02, b=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
