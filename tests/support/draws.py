"""Numbers for exact checks: drawn once, in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.tasks.episodes import Examples, Noise


def draw(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shaken(model: nn.Module, std: float = 0.3) -> nn.Module:
    """`model` in float64 with parameters from one generator, so that nothing is zero or equal by its initialisation."""
    model = model.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def answers(
    algorithm: Algorithm, problem: Problem, support: Examples, x: Tensor, *, noise: Noise | None = None, way: int = 0
) -> Tensor:
    """What the adapted predictor gives for queries."""
    learned: Learned = algorithm.init(problem, problem.initial_params(), torch.Generator())
    phase = Phase(training=False, way=way)
    return algorithm.adapt(problem, learned, support, noise=noise or {}, phase=phase).predictors[-1](x).detach()
