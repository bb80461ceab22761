"""Rules of learned optimisers: networks that say how each coordinate of θ moves, by its own gradients alone."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raymeta.models.layers.coordinate_lstm import CoordinateLSTM, preprocess
from raymeta.tree import Params


class OptimizerRule(nn.Module, ABC):
    """Slopes [n] of n coordinates to their updates [n], and a state from step to step.

    Law: coordinates that change places change places in the updates, so a rule serves any number of any shapes.
    """

    @abstractmethod
    def start(self, theta: Tensor) -> Params:
        """The state before the first step of θ [n]."""

    @abstractmethod
    def forward(self, slope: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Params]:
        """Updates, to be added to θ, and the next state."""


class LSTMRule(OptimizerRule):
    """An LSTM for each coordinate reads the magnitude and the sign of its slope (Andrychowicz et al., NIPS 2016)."""

    def __init__(self, hidden: int, layers: int, *, output_scale: float, log_range: float) -> None:
        super().__init__()
        self.cells = CoordinateLSTM(2, hidden, layers)
        self.shape = layers, 2, hidden
        self.output_scale, self.log_range = output_scale, log_range

    def start(self, theta: Tensor) -> Params:
        return {"hidden": theta.new_zeros(len(theta), *self.shape)}

    def forward(self, slope: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Params]:
        update, hidden = self.cells(preprocess(slope, self.log_range), state["hidden"])
        return self.output_scale * update, {"hidden": hidden}


DECAYS = (0.5, 0.9, 0.99)
"""Of the running means of the slope that `PerceptronRule` sees."""
SQUARE_DECAY = 0.99
"""Of its running mean of squared slopes."""
TIMES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Numbers of steps that it tells apart."""
EPS = 1e-8


class PerceptronRule(OptimizerRule):
    """A perceptron for each coordinate reads its slope, running means of it, their size, and the number of the step.

    Slope and means are divided by the root of the running mean of squares, whose logarithm it is told too. Of its
    outputs d and m the update is −scale · d · exp(m).
    """

    def __init__(self, hidden: int, layers: int, *, output_scale: float) -> None:
        super().__init__()
        sizes = [2 + len(DECAYS) + len(TIMES), *[hidden] * layers]
        pairs = itertools.pairwise(sizes)
        self.layers = nn.Sequential(*(module for pair in pairs for module in (nn.Linear(*pair), nn.ReLU())))
        self.output = nn.Linear(sizes[-1], 2)
        self.output_scale = output_scale

    def start(self, theta: Tensor) -> Params:
        means = theta.new_zeros(len(theta), len(DECAYS))
        return {"means": means, "squares": torch.zeros_like(theta), "count": theta.new_zeros(())}

    def forward(self, slope: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Params]:
        decays, count = slope.new_tensor(DECAYS), state["count"] + 1
        means = decays * state["means"] + (1 - decays) * slope[:, None]
        squares = SQUARE_DECAY * state["squares"] + (1 - SQUARE_DECAY) * slope.square()
        size = (squares / (1 - SQUARE_DECAY**count)).sqrt() + EPS
        seen = torch.cat([slope[:, None], means / (1 - decays**count)], 1) / size[:, None]
        time = torch.tanh(count / slope.new_tensor(TIMES) - 1).expand(len(slope), -1)
        direction, magnitude = self.output(self.layers(torch.cat([seen, size.log()[:, None] / 10, time], 1))).unbind(1)
        update = -self.output_scale * direction * magnitude.exp()
        return update, {"means": means, "squares": squares, "count": count}
