"""Our own paths to a shard's gradient, to scores and to episodes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import TASK_GRADIENT
from raymeta.bench.case import Case
from raymeta.engine.worker.shard_function import Asked, ShardFunction
from raymeta.keys import TaskKey
from raymeta.tasks.episodes import Episode, Noise, each, stack_episodes
from raymeta.tasks.inputs import only
from raymeta.tree import Layout, Params

PATHS = ("vmap", "loop", "vmap, compiled", "loop, compiled")


def start(case: Case, problem: Problem) -> Learned:
    """What is learned before the first step, always the same: other types would draw other random numbers."""
    params = {name: value.float() for name, value in problem.initial_params().items()}
    learned = case.algorithm.init(problem, params, torch.Generator().manual_seed(0))
    params, state = ({name: v.to(case.dtype) for name, v in part.items()} for part in (learned.params, learned.state))
    return learned._replace(params=params, state=state)


def begun(case: Case, path: str, device: torch.device) -> tuple[Problem, Learned]:
    """The problem of a path and what is learned, on the device."""
    problem = Problem(case.module(), goal=case.goal, vectorize="loop" if path.startswith("loop") else "vmap")
    learned = start(case, problem)
    learned = learned._replace(params={name: value.to(device) for name, value in learned.params.items()})
    problem.model.to(device)
    return problem, learned


def given(case: Case, problem: Problem, device: torch.device, phase: Phase) -> tuple[Episode, Noise, Phase]:
    """The tasks, what is drawn for them, and the phase with their way."""
    episodes = case.episodes()
    phase = phase._replace(way=problem.way_of(episodes))
    noise = case.algorithm.noise(problem, keys_of(case), episodes, phase)
    moved = each(lambda value: value.to(device), episodes)
    return moved, {name: value.to(device) for name, value in noise.items()}, phase


def keys_of(case: Case) -> list[TaskKey]:
    return [TaskKey(0, "train", 0, index) for index in range(case.num_tasks)]


def ours(case: Case, path: str, device: torch.device) -> Callable[[], Params]:
    """A function that computes the case's work: of gradients the sum over tasks, by name."""
    return {"gradient": gradient_of, "evaluation": scores_of, "episodes": episodes_of}[case.work](case, path, device)


def gradient_of(case: Case, path: str, device: torch.device) -> Callable[[], Params]:
    problem, learned = begun(case, path, device)
    layout = Layout.of(learned.params)
    state = Layout.of(learned.state)
    function = ShardFunction(case.algorithm, problem, layout, state, compiled=path.endswith("compiled"))
    episodes, noise, phase = given(case, problem, device, Phase())
    dtype = next(iter(learned.params.values())).dtype

    def gradient() -> Params:
        sums = function(learned, Asked(TASK_GRADIENT, episodes, noise, phase)).vector[: layout.size]
        return layout.unflatten(sums.to(dtype))

    return gradient


def scores_of(case: Case, path: str, device: torch.device) -> Callable[[], Params]:
    """Losses of the queries of each task [T, K + 1]."""
    _require_eager(path)
    problem, learned = begun(case, path, device)
    episodes, noise, phase = given(case, problem, device, Phase(training=False))
    return lambda: {"loss": case.algorithm.scores(problem, learned, episodes, noise=noise, phase=phase)["loss"]}


def episodes_of(case: Case, path: str, device: torch.device) -> Callable[[], Params]:
    """Inputs of the tasks; `vmap` builds them in one call, `loop` one by one."""
    _require_eager(path)
    assert case.drawn_from is not None
    tasks, keys = case.drawn_from, keys_of(case)

    def built() -> Params:
        found = stack_episodes([tasks.episode(key) for key in keys]) if path == "loop" else tasks.episodes(keys)
        return {name: only(side.x).to(device) for name, side in zip(("support", "query"), found, strict=True)}

    return built


def _require_eager(path: str) -> None:
    if path.endswith("compiled"):
        raise NotImplementedError("only gradients are compiled")
