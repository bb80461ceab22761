"""Our own paths to a shard's gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch

from raymeta.adaptation.problem import Phase, Problem
from raymeta.algorithms.base import TASK_GRADIENT
from raymeta.bench.cases import Case
from raymeta.engine.worker.shard_function import Asked, ShardFunction
from raymeta.keys import TaskKey
from raymeta.tasks.episodes import each
from raymeta.tree import Layout, Params

PATHS = ("vmap", "loop", "vmap, compiled", "loop, compiled")


def ours(case: Case, path: str, device: torch.device) -> Callable[[], Params]:
    """A function that computes the sum over the case's tasks of the meta-gradient, by name."""
    problem = Problem(case.module(), goal=case.goal, vectorize="loop" if path.startswith("loop") else "vmap")
    learned = case.algorithm.init(problem, problem.initial_params(), torch.Generator().manual_seed(0))
    learned = learned._replace(params={name: value.to(device) for name, value in learned.params.items()})
    problem.model.to(device)
    layout = Layout.of(learned.params)
    function = ShardFunction(case.algorithm, problem, layout, Layout({}), compiled=path.endswith("compiled"))
    episodes = case.episodes()
    moved = each(lambda value: value.to(device), episodes)
    phase = Phase(way=problem.way_of(episodes))
    dtype = next(iter(learned.params.values())).dtype
    keys = [TaskKey(0, "train", 0, index) for index in range(case.num_tasks)]
    noise = {n: v.to(device) for n, v in case.algorithm.noise(problem, keys, episodes, phase).items()}

    def gradient() -> Params:
        sums = function(learned, Asked(TASK_GRADIENT, moved, noise, phase)).vector[: layout.size]
        return layout.unflatten(sums.to(dtype))

    return gradient
