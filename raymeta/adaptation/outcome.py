"""What adapting to one task gives: predictors, and the metrics of a training task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raymeta.adaptation.problem import Problem
from raymeta.tasks.episodes import Examples
from raymeta.tasks.inputs import Inputs

Predictor = Callable[[Inputs], Tensor]
"""Query inputs [Q, *feature] to outputs [Q, num_outputs]."""


class Adaptation(NamedTuple):
    """The outcome of adapting to one task: a predictor before and after each inner step, and the first support loss.

    `loss` of (outputs, y) is the method's own where it has one; `penalty` is added to what the outer loop minimises.
    Where outputs say more of y than a value, as a distribution does, `point` of outputs are the values, and `deviation`
    its standard deviations.
    """

    predictors: list[Predictor]  # K + 1
    support_loss: Tensor | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    penalty: Tensor | None = None
    point: Callable[[Tensor], Tensor] | None = None
    deviation: Callable[[Tensor], Tensor] | None = None


def training_metrics(
    problem: Problem, loss: Tensor, outputs: Tensor, y: Tensor, support_loss: Tensor | None
) -> dict[str, Tensor]:
    """A task's metrics under their names in metrics.jsonl."""
    metrics = {"train/query_loss": loss.detach()}
    if support_loss is not None:
        metrics["train/support_loss"] = support_loss.detach()
    if problem.has_accuracy:
        metrics["train/query_accuracy"] = problem.metrics(outputs.detach(), y)["accuracy"]
    return metrics


def multi_step_loss(
    problem: Problem, adaptation: Adaptation, query: Examples, weights: Tensor | Sequence[float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ_k w_k L_Q(θ_k) over the inner steps, with one weight [K] for each, and the metrics of the last one."""
    outputs = [predict(query.x) for predict in adaptation.predictors[1:]]
    losses = torch.stack([problem.loss(out, query.y) for out in outputs])
    loss = (losses * (weights if isinstance(weights, Tensor) else losses.new_tensor(weights))).sum()
    return loss, training_metrics(problem, losses[-1], outputs[-1], query.y, adaptation.support_loss)


def once(function: Predictor) -> Predictor:
    """`function` remembering its last result, since the predictors of a task all see the same queries."""
    last: list[tuple[Inputs, Tensor]] = []

    def call(x: Inputs) -> Tensor:
        if not last or last[0][0] is not x:
            last[:] = [(x, function(x))]
        return last[0][1]

    return call
