"""ResNet-12, the larger network of the few-shot literature."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.models.base import ModelSpec
from raymeta.models.layers.convolution import Conv2d
from raymeta.models.layers.norm import BatchNorm, name_norms
from raymeta.models.layers.pooling import MeanPool, max_pool
from raymeta.models.shapes import require_images
from raymeta.options import STRICT
from raymeta.tasks.inputs import Shape


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResNet12(ModelSpec):
    """Four residual blocks of three 3 x 3 convolutions with batch norm and leaky ReLU 0.1, each max-pooled 2 x 2.

    Lee et al. Meta-Learning with Differentiable Convex Optimization. CVPR 2019. Difference: no DropBlock.
    """

    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 160, 320, 640)
    """channels of each block; (64, 128, 256, 512) is the other usual choice"""
    pooling: Literal["mean", "flatten"] = "mean"
    """how features are formed: the mean over pixels [widths[-1]], or all pixels"""

    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        channels, height, width = require_images("resnet12", input_shape, 2 ** len(self.widths))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, size in enumerate(self.widths, start=1):
            layers[f"block{i}"] = Block(channels, size)
            channels, height, width = size, height // 2, width // 2
        if self.pooling == "mean":
            layers["mean"] = MeanPool()
            height = width = 1
        layers["flatten"] = nn.Flatten()
        features = channels * height * width
        layers["head"] = nn.Identity() if num_outputs is None else nn.Linear(features, num_outputs)
        model = nn.Sequential(layers)
        name_norms(model)
        return model


class Block(nn.Module):
    """x [n, in_channels, h, w] to [n, channels, h // 2, w // 2]."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(in_channels, channels, 3), BatchNorm(channels)
        self.conv2, self.norm2 = _conv(channels, channels, 3), BatchNorm(channels)
        self.conv3, self.norm3 = _conv(channels, channels, 3), BatchNorm(channels)
        self.conv_shortcut, self.norm_shortcut = _conv(in_channels, channels, 1), BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = F.leaky_relu(self.norm1(self.conv1(x)), 0.1)
        z = F.leaky_relu(self.norm2(self.conv2(z)), 0.1)
        z = self.norm3(self.conv3(z)) + self.norm_shortcut(self.conv_shortcut(x))
        return F.leaky_relu(max_pool(z), 0.1)


def _conv(in_channels: int, channels: int, size: int) -> nn.Conv2d:
    conv = Conv2d(in_channels, channels, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")
    return conv
