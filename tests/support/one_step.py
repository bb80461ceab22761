"""One outer step of a method in this process, whatever maps it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import TASK_GRADIENT, Algorithm
from raymeta.engine.driver.outer import OuterOptimizer, OuterOptions
from raymeta.engine.fold import Total
from raymeta.keys import TaskKey
from raymeta.tasks.episodes import Episode, stack_episodes
from raymeta.tree import Layout, Params


class Recorded(OuterOptimizer):
    """Remembers what it is stepped with."""

    def __init__(self, learned: Learned, algorithm: Algorithm, options: OuterOptions) -> None:
        super().__init__(learned, options, algorithm.outer_of, apart=True)
        self.updates: list[Params] = []

    def update(self, gradients: Mapping[str, Tensor]) -> float:
        self.updates.append(dict(gradients))
        return super().update(gradients)

    def preview(self, gradients: Mapping[str, Tensor]) -> Params:
        after = super().preview(gradients)
        self.updates.pop()
        return after


def keys_of(step: int, num_tasks: int) -> list[TaskKey]:
    """What the draws of a step come from."""
    return [TaskKey(0, "train", step, index) for index in range(num_tasks)]


def one_step(
    algorithm: Algorithm,
    network: nn.Module | Problem,
    episodes: Sequence[Episode],
    rate: float,
    vectorize: Any = "vmap",
    *,
    params: Params | None = None,
    steps: int = 1,
    **options: Any,
) -> tuple[Recorded, Params]:
    """One step, or several on the same tasks, of plain SGD unless `options` say otherwise, and what it began with:
    (outer, parameters before)."""
    known = isinstance(network, Problem)
    problem = network if known else Problem(network, goal="classification", vectorize=vectorize)
    learned = algorithm.init(problem, problem.initial_params() | (params or {}), torch.Generator())
    outer = Recorded(learned, algorithm, OuterOptions(lr=rate, **{"optimizer": "sgd", **options}))
    batch = stack_episodes(episodes)

    def compute(function: str = TASK_GRADIENT, given: Params | None = None) -> Total:
        now = Learned(dict(outer.params), {}, given or {})
        noise = algorithm.noise(problem, keys, batch, Phase())
        part = algorithm.contribution(problem, now, batch, noise=noise, phase=Phase(), function=function)
        layout = Layout.of(part.sums)
        rows = {name: value.numpy() for name, value in part.rows.items()}
        return Total(
            len(episodes), layout.flatten(part.sums).numpy(), {}, (), pieces=(rows,) if rows else (), layout=layout
        )

    for step in range(steps):
        keys = keys_of(step, len(episodes))
        algorithm.step(outer, compute, Phase(step=step))  # type: ignore[arg-type]
    return outer, learned.params
