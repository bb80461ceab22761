"""Examples one by one: their losses, how each changes along a direction, and the gradient of clean ones."""

from __future__ import annotations

import torch
from torch import Tensor

from raymeta.adaptation.outcome import training_metrics
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.adaptation.through_step import slopes
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.tasks.episodes import Episode, Examples
from raymeta.tree import Params


def losses_of(problem: Problem, learned: Learned, own: Params, examples: Examples, phase: Phase) -> Tensor:
    """The loss of each example [n] with the parameters `own` in place of those learned."""
    outputs = problem.predict(learned._replace(params=learned.params | own), examples.x, phase)
    each: Tensor = torch.vmap(lambda out, y: problem.loss(out[None], y[None]))(outputs, examples.y)
    return each


def slopes_along(
    problem: Problem, learned: Learned, own: Params, direction: Params, examples: Examples, phase: Phase
) -> Tensor:
    """⟨∇f_i, d⟩ of each example [n] in the parameters `own`, as the gradient in u of ⟨∇_w Σ u_i f_i, d⟩."""

    def mixed(own: Params, shares: Params) -> Tensor:
        return (shares["u"] * losses_of(problem, learned, own, examples, phase)).sum()

    like = next(iter(own.values()))
    return slopes(mixed, own, {"u": like.new_ones(len(examples.y))}, direction)["u"]


def gradient_on_queries(problem: Problem, learned: Learned, own: Params, episode: Episode, phase: Phase) -> Part:
    """Gradient of the query loss in the parameters `own`, at their values, and metrics of the queries."""

    def clean(own: Params) -> tuple[Tensor, dict[str, Tensor]]:
        there = learned._replace(params=learned.params | own)
        outputs = problem.predict(there, episode.query.x, phase)
        loss = problem.loss(outputs, episode.query.y)
        return loss, training_metrics(problem, loss, outputs, episode.query.y, None)

    gradient, (_, metrics) = gradient_and_value(clean, own, has_aux=True)
    return Part(gradient, metrics)
