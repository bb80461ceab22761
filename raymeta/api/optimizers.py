"""Tuned optimisers on the problems of a learned one: the same starts, the same batches, and each at its best rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.learned_optimizer import OPTIMIZER, LearnedOptimizer
from raymeta.config.variants import name_of
from raymeta.engine.executors.base import Tell, silent
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.keys import Split, TaskKey
from raymeta.models.layers.beside import BODY
from raymeta.models.layers.hand_rules import HANDS, RATE, HandName, HandRule
from raymeta.models.layers.optimizer_rules import OptimizerRule
from raymeta.tree import FloatArray

RATES = tuple(10 ** (power / 3) for power in range(-9, 4))
"""Constant rates that are tried, from 0.001 to 10."""
SEARCHED, COMPARED = 32, 64
"""Most validation problems that a rate is chosen on, and most test problems that the figure of a run is about."""
_MOST_COORDINATES = 1 << 22
"""Coordinates that are stepped together, over rates and problems, so that memory is bounded."""


class Tuned(NamedTuple):
    """The rate that ended lowest on validation problems, and the losses of test problems with it [n, K + 1]."""

    rate: float
    losses: Tensor


def tuned(blueprint: Blueprint, name: HandName, *, searched: int, tested: int, seed: int) -> Tuned:
    """An optimiser at its best rate over the first `searched` validation problems, on the first `tested` of the test.

    Problems are those of `seed`, as runs are scored on them. A rate that diverges is none.
    """
    found = losses_at(blueprint, name, RATES, "val", searched, seed)
    ends = found[:, :, -1].mean(1).nan_to_num(nan=torch.inf)
    rate = RATES[int(ends.argmin())]
    return Tuned(rate, losses_at(blueprint, name, [rate], "test", tested, seed)[0])


def losses_at(
    blueprint: Blueprint, name: HandName, rates: Sequence[float], split: Split, count: int, seed: int
) -> Tensor:
    """Losses before and after each step [rates, count, K + 1] of an optimiser at each of `rates`."""
    problem = _problem(blueprint, HandRule(name, 1.0))
    body = problem.model.get_submodule(BODY.rstrip("."))
    size = sum(p.numel() for p in body.parameters())
    at_once = max(1, _MOST_COORDINATES // (size * len(rates)))
    parts = []
    for keys in _some([TaskKey(seed, split, 0, index) for index in range(count)], at_once):
        draw = _scores(problem, blueprint, keys)
        parts.append(torch.vmap(lambda rate, draw=draw: draw({f"{OPTIMIZER}.{RATE}": rate}))(torch.tensor(rates)))
    return torch.cat(parts, 1)


def losses_under(blueprint: Blueprint, rule: OptimizerRule, split: Split, count: int, seed: int) -> Tensor:
    """Losses before and after each step [count, K + 1] of a rule as it is."""
    problem = _problem(blueprint, rule)
    return _scores(problem, blueprint, [TaskKey(seed, split, 0, index) for index in range(count)])({})


def optimizer_curves(
    blueprint: Blueprint, losses: FloatArray, *, seed: int, tell: Tell = silent
) -> dict[str, Any] | None:
    """Mean losses of a learned optimiser, of which `losses` [n, K + 1] are those of the test problems, and of tuned
    ones on the first of the same problems; None for a method that learns no optimiser."""
    algorithm = blueprint.algorithm
    if not isinstance(algorithm, LearnedOptimizer):
        return None
    tell("testing", f"choosing rates of {', '.join(HANDS)}, to compare with")
    tested = min(COMPARED, len(losses))
    searched = min(SEARCHED, len(losses))
    hands = {name: tuned(blueprint, name, searched=searched, tested=tested, seed=seed) for name in HANDS}
    return {
        "problems": tested,
        "rates": {name: found.rate for name, found in hands.items()},
        "losses": {
            name_of(algorithm): losses[:tested].mean(0).tolist(),
            **{name: found.losses.mean(0).tolist() for name, found in hands.items()},
        },
    }


def _problem(blueprint: Blueprint, rule: OptimizerRule) -> Problem:
    """The optimisee with `rule` beside it, side by side for all problems."""
    problem = blueprint.on_cpu().problem()
    problem.model.add_module(OPTIMIZER, rule)
    problem.vectorize = "vmap"
    problem.set_training(False)
    return problem


def _scores(problem: Problem, blueprint: Blueprint, keys: Sequence[TaskKey]) -> Callable[[dict[str, Tensor]], Tensor]:
    """A function of the rule's tensors that gives the losses of the problems `keys` [n, K + 1]."""
    algorithm = blueprint.algorithm
    assert isinstance(algorithm, LearnedOptimizer)
    episodes = blueprint.tasks.episodes(keys)
    phase = Phase(training=False, way=problem.way_of(episodes))
    noise = algorithm.noise(problem, keys, episodes, phase)

    def losses(tensors: dict[str, Tensor]) -> Tensor:
        scores = algorithm.scores(problem, Learned(tensors, {}), episodes, noise=noise, phase=phase)
        return scores["loss"].double()

    return losses


def _some(keys: Sequence[TaskKey], count: int) -> Iterator[Sequence[TaskKey]]:
    return (keys[start : start + count] for start in range(0, len(keys), count))
