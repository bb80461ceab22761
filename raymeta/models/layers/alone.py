"""Parameters without a network: points to be moved, and what a search has found."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raymeta.tasks.objective import Objective


class Point(nn.Module):
    """θ where tasks are functions of it: x and y to the value."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(objective.size))
        self.value = objective.value

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.value(self.theta, x, y)


class Found(nn.Module):
    """The best architecture so far [edges] beside a method's networks."""

    def __init__(self, edges: int, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.best = nn.Parameter(torch.zeros(edges))
        for name, network in networks.items():
            self.add_module(name, network)
