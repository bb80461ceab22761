"""Learning to Reweight: each training example weighs what its gradient does for clean ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.adaptation.weighted import gradient_on_queries, losses_of, slopes_along
from raymeta.algorithms.base import Compute, Outer, TrainedModel
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import only
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.tree import Params

TOTAL = "|total"
"""The sum of all weights; no parameter's name holds a bar."""
CLEAN_X, CLEAN_Y = "clean|x", "clean|y"
"""The clean batches of all tasks [T, n, ...], as they are given to each."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class L2RW(TrainedModel):
    """Ren, Zeng, Yang, Urtasun. Learning to Reweight Examples for Robust Deep Learning. ICML 2018.

    The support sets of a step are its batch of training examples with losses f_i; the query sets are its clean batch. A
    step is:
    1. a virtual step ŵ(ε) = w − η Σ_i ε_i ∇f_i(w), at ε = 0;
    2. u_i = −∂L_clean(ŵ(ε)) / ∂ε_i, which is η ⟨∇L_clean(w), ∇f_i(w)⟩;
    3. ω_i = max(0, u_i) / Σ_j max(0, u_j), and all 0 where the sum is;
    4. w ← w − η Σ_i ω_i ∇f_i(w), by the outer optimiser.
    Sums run over the examples of all tasks of the step. Nothing about weights is kept from step to step. With `exact`
    2. is the derivative of the clean loss through the virtual step, ε by ε; else the inner product. Both are equal but
    for rounding. η is 1 in 1. and 2., since it cancels in 3.

    Differences from the paper:
    1. The virtual step is plain gradient descent, whatever the outer optimiser, its momentum and decay; so it is in the
       authors' code.
    2. Batch norm has no running statistics here: every pass uses those of its batch.
    """

    one_by_one: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}

    exact: bool = False
    """differentiate the clean loss of all tasks through the virtual step, in place of inner products; several times the
    time and memory"""

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        if self.exact:
            total = compute("reweighted_through_step", given=compute("clean_examples").tasks()).sums()
        else:
            total = compute("reweighted", given=compute("clean_gradient").means()).sums()
        weight = total.pop(TOTAL)
        share = torch.where(weight > 0, 1 / weight, 0.0)
        return {OUTER_GRAD_NORM: outer.update({name: value * share for name, value in total.items()})}

    def clean_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """Gradient of the query loss."""
        return gradient_on_queries(problem, learned, learned.params, episode, phase)

    def clean_examples(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """The queries as rows, with their gradient's metrics."""
        metrics = gradient_on_queries(problem, learned, learned.params, episode, phase).metrics
        return Part(metrics=metrics, rows={CLEAN_X: only(episode.query.x), CLEAN_Y: episode.query.y})

    def reweighted(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """Σ max(0, ⟨∇L_clean, ∇f_i⟩) ∇f_i over the support for the clean gradient that is given, and the sum of these
        weights."""
        own = learned.params
        slopes = slopes_along(problem, learned, own, learned.given, episode.support, phase)
        return self._weighted(problem, learned, episode.support, slopes, phase)

    def reweighted_through_step(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """The same, with weights from the derivative of the mean loss of all clean batches, which are given."""

        def clean_loss(shares: Params) -> Tensor:
            def mixed(own: Params) -> Tensor:
                return (shares["e"] * losses_of(problem, learned, own, episode.support, phase)).sum()

            gradient, _ = gradient_and_value(mixed, learned.params)
            ahead = learned._replace(params={n: w - gradient[n] for n, w in learned.params.items()})
            losses = [
                problem.loss(problem.predict(ahead, x, phase), y)
                for x, y in zip(learned.given[CLEAN_X], learned.given[CLEAN_Y], strict=True)
            ]
            return torch.stack(losses).mean()

        like = next(iter(learned.params.values()))
        gradient, _ = gradient_and_value(clean_loss, {"e": like.new_zeros(len(episode.support.y))})
        return self._weighted(problem, learned, episode.support, -gradient["e"], phase)

    def weigh(self, problem: Problem, learned: Learned, episode: Episode, *, phase: Phase) -> tuple[Tensor, Tensor]:
        own, clean = learned.params, gradient_on_queries(problem, learned, learned.params, episode, phase).sums
        losses = losses_of(problem, learned, own, episode.support, phase)
        return losses, slopes_along(problem, learned, own, clean, episode.support, phase).clamp(min=0)

    def _weighted(self, problem: Problem, learned: Learned, support: Examples, u: Tensor, phase: Phase) -> Part:
        weights = u.detach().clamp(min=0)

        def weighted(own: Params) -> tuple[Tensor, Tensor]:
            losses = losses_of(problem, learned, own, support, phase)
            return (weights * losses).sum(), losses

        gradient, (_, losses) = gradient_and_value(weighted, learned.params, has_aux=True)
        return Part(gradient | {TOTAL: weights.sum()}, {"train/support_loss": losses.mean().detach()})
