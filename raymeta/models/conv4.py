"""The four-block convolutional network of the few-shot literature."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Literal, Self

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import nn

from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.layers.convolution import Conv2d
from raymeta.models.layers.norm import NormKind, make_norm, name_norms
from raymeta.models.layers.pooling import MaxPool2x2, MeanPool
from raymeta.models.shapes import require_images
from raymeta.options import STRICT
from raymeta.tasks.inputs import Shape


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Conv4(ModelSpec):
    """Blocks of 3 x 3 convolution, norm and ReLU (Vinyals et al. 2016; Finn et al. 2017).

    The default is MAML's Omniglot network. Its mini-ImageNet network is `width=32, downsample="pool",
    pooling="flatten"`, which Prototypical Networks use with `width=64`.

    Differences from MAML's code: (1) a convolution followed by a norm has no bias, whose gradient would be zero
    under batch norm; (2) batch norm has a gain besides its shift; (3) the head is Xavier by default on Omniglot too.
    """

    width: PositiveInt = 64
    """channels of each block"""
    depth: PositiveInt = 4
    """blocks; the literature's network has four, other numbers are for architecture search"""
    downsample: Literal["stride", "pool"] = "stride"
    """halve the image in each block by stride 2, or by 2 x 2 max-pooling after the ReLU"""
    pooling: Literal["mean", "flatten"] = "mean"
    """how features are formed: the mean over pixels [width], or all pixels"""
    norm: NormKind = "batch"
    """`layer` is over channels and pixels, with one gain and shift for each channel"""
    groups: PositiveInt = 8
    """groups of the group norm"""
    head_init: Literal["xavier", "normal"] = "xavier"
    """weights of the head: Xavier, or N(0, 1) as in MAML's Omniglot code; its bias is zero"""

    def resized(self, width: int | None, depth: int | None) -> Self:
        return replace(self, width=width or self.width, depth=depth or self.depth)

    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        pooled = self.downsample == "pool"
        channels, height, width = require_images("conv4", input_shape, 2**self.depth if pooled else 1)
        if self.norm == "group" and self.width % self.groups:
            raise ConfigError(f"conv4: width {self.width} does not divide into groups {self.groups}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, self.depth + 1):
            layers |= self._block(channels, i)
            channels = self.width
            height, width = (height // 2, width // 2) if pooled else (-(-height // 2), -(-width // 2))
        if self.pooling == "mean":
            layers["mean"] = MeanPool()
            height = width = 1
        layers["flatten"] = nn.Flatten()
        layers["head"] = self._head(self.width * height * width, num_outputs)
        model = nn.Sequential(layers)
        name_norms(model)
        return model

    def _block(self, channels: int, i: int) -> OrderedDict[str, nn.Module]:
        stride = 2 if self.downsample == "stride" else 1
        conv = Conv2d(channels, self.width, 3, stride, padding=1, bias=self.norm == "none")
        nn.init.xavier_uniform_(conv.weight)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers[f"conv{i}"] = conv
        layers[f"norm{i}"] = make_norm(self.norm, self.width, self.groups)
        if self.downsample == "pool":  # before the ReLU: the same values and gradients, on a quarter of the pixels
            layers[f"pool{i}"] = MaxPool2x2()
        layers[f"relu{i}"] = nn.ReLU()
        return layers

    def _head(self, num_features: int, num_outputs: int | None) -> nn.Module:
        if num_outputs is None:
            return nn.Identity()
        head = nn.Linear(num_features, num_outputs)
        if self.head_init == "xavier":
            nn.init.xavier_uniform_(head.weight)
        else:
            nn.init.normal_(head.weight)
        nn.init.zeros_(head.bias)
        return head
