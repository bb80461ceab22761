"""Functions to be minimised, for learned optimisers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Objective(nn.Module, ABC):
    """A function of its parameters that an episode decides."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Its value for the support x [n, *feature] and y [n, d] of an episode."""


class SquaredDistance(Objective):
    """‖xθ − y‖² with θ [dim]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x @ self.theta - y[:, 0]).square().sum()
