"""The second-order meta-gradient of a task in the memory of one inner step: the parameters between steps are kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raymeta.adaptation.descent import Descent, after
from raymeta.adaptation.outcome import training_metrics
from raymeta.adaptation.problem import Learned, Part, Problem
from raymeta.autodiff.recompute import Link, backward, forward
from raymeta.models.layers.norm import collect_statistics
from raymeta.tasks.episodes import Episode
from raymeta.tree import Params

SUPPORT_LOSS, QUERY_LOSS, OUTPUTS = "support_loss|", "query_loss|", "outputs|"
"""Values beside the parameters, whose names hold no bar."""


def checkpointed_gradient(
    problem: Problem, learned: Learned, episode: Episode, descent: Descent, weights: Mapping[int, float | Tensor]
) -> Part:
    """One task's meta-gradient, new state and metrics, the same bits as one graph of everything gives.

    `weights` are those of the query losses, by the number of inner steps before each.
    """
    links = [] if descent.prepare is None else [descent.prepare]
    links += [_step(descent, k, kept=k in weights) for k in range(descent.num_steps)]
    links += [_query(problem, descent, episode, k) for k in sorted(weights)]
    with collect_statistics() as statistics:
        values, tape = forward(links, learned.params | descent.start, problem.surroundings)
    state = {name: statistics[name] for name in learned.state}
    losses = {
        QUERY_LOSS + str(k): torch.ones_like(values[QUERY_LOSS + str(k)]) * weight for k, weight in weights.items()
    }
    gradient = backward(tape, losses, problem.surroundings)
    last = values[QUERY_LOSS + str(descent.num_steps)], values[OUTPUTS + str(descent.num_steps)]
    metrics = training_metrics(problem, *last, episode.query.y, values[SUPPORT_LOSS])
    return Part({n: gradient.get(n, torch.zeros_like(p)) for n, p in learned.params.items()} | state, metrics)


def _step(descent: Descent, k: int, *, kept: bool) -> Link:
    """Inner step k, from 0; `kept` parameters before it are queried too."""

    def call(values: Params) -> Params:
        trajectory = descent.run(values, 1, start=k)
        outputs = trajectory.params[1] | trajectory.state
        if k == 0:
            outputs[SUPPORT_LOSS] = trajectory.losses[0]
        if kept:
            outputs |= {_after(k, name): value for name, value in descent.theta(values).items()}
        return outputs

    state = descent.rule.state_names(descent.adapted) if k else []
    return Link((*descent.adapted, *descent.fixed, *state), call)


def _query(problem: Problem, descent: Descent, episode: Episode, k: int) -> Link:
    """The query loss after k inner steps."""
    own = {name: name if k == descent.num_steps else _after(k, name) for name in descent.adapted}

    def call(values: Params) -> Params:
        values = values | {name: values[kept] for name, kept in own.items()}
        (predict,) = descent.predictors(values, [descent.theta(values)])
        outputs = after(k, predict)(episode.query.x)
        return {QUERY_LOSS + str(k): problem.loss(outputs, episode.query.y), OUTPUTS + str(k): outputs}

    return Link([own.get(name, name) for name in descent.queried], call)


def _after(k: int, name: str) -> str:
    return f"{k}|{name}"
