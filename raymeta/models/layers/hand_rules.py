"""The optimisers that people choose a rate for, as rules beside the learned ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from raymeta.models.layers.optimizer_rules import OptimizerRule
from raymeta.tree import Params

HandName = Literal["sgd", "momentum", "rmsprop", "adam"]
HANDS: tuple[HandName, ...] = get_args(HandName)
RATE = "rate"
"""Name of the buffer that holds the rate, which may so be another one in each of several calls."""


class HandRule(OptimizerRule):
    """SGD, SGD with momentum 0.9, RMSProp or Adam at one rate, with the defaults of torch.optim."""

    rate: Tensor

    def __init__(self, name: HandName, rate: float) -> None:
        super().__init__()
        self.name = name
        self.register_buffer(RATE, torch.tensor(rate))

    def start(self, theta: Tensor) -> Params:
        return {"mean": torch.zeros_like(theta), "square": torch.zeros_like(theta), "count": theta.new_zeros(())}

    def forward(self, slope: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Params]:
        mean, square, count = state["mean"], state["square"], state["count"] + 1
        match self.name:
            case "sgd":
                update = slope
            case "momentum":
                update = mean = 0.9 * mean + slope
            case "rmsprop":
                square = 0.99 * square + 0.01 * slope.square()
                update = slope / (square.sqrt() + 1e-8)
            case "adam":
                mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope.square()
                update = mean / (1 - 0.9**count) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
        return -self.rate.to(slope.dtype) * update, {"mean": mean, "square": square, "count": count}
