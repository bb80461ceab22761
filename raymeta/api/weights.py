"""What a method that weighs training examples makes of some of them, once it is trained."""

from __future__ import annotations

from typing import Any

from raymeta.adaptation.problem import Learned, Phase
from raymeta.algorithms.base import TrainedModel
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.keys import TaskKey
from raymeta.models.shapes import type_of
from raymeta.tasks.episodes import in_type

NUM_EXAMPLES = 400


def example_weights(blueprint: Blueprint, learned: Learned, *, seed: int) -> dict[str, list[Any]] | None:
    """Of about 400 training examples: `loss`, `weight` and whether the label is `wrong`; None for a method without
    weights, and where labels mean another class in each task.

    A weight is relative to the mean of its batch: 1 is plain training.
    """
    algorithm, tasks = blueprint.algorithm, blueprint.tasks
    if not isinstance(algorithm, TrainedModel) or not tasks.one_problem:
        return None
    problem = blueprint.on_cpu().problem()
    dtype = type_of(problem.model)
    learned = learned.in_type(dtype)
    found: dict[str, list[Any]] = {"loss": [], "weight": [], "wrong": []}
    while len(found["loss"]) < NUM_EXAMPLES:
        key = TaskKey(seed, "train", 0, len(found["loss"]))
        episode = in_type(dtype, tasks.episode(key))
        with problem.undisturbed():
            weighed = algorithm.weigh(problem, learned, episode, phase=Phase())
        if weighed is None:
            return None
        losses, weights = (value.detach().double() for value in weighed)
        mean, true = weights.mean(), episode.support.class_id
        found["loss"] += losses.tolist()
        found["weight"] += (weights / mean if mean > 0 else weights).tolist()
        found["wrong"] += [False] * len(losses) if true is None else (episode.support.y != true).tolist()
    return found
