"""MLDG: learning to generalise to domains that were not seen."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import NonNegativeFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.descent import descend
from raymeta.adaptation.inner_rules import InnerOptimizer, InnerRule
from raymeta.adaptation.outcome import training_metrics
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import TrainedModel
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tree import Params


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MLDG(TrainedModel):
    """Li, Yang, Song, Hospedales. Learning to Generalize: Meta-Learning for Domain Generalization. AAAI 2018.

    Of the domains to train on, each step puts some aside: F(θ) is the mean loss of the others, a task's support, and G
    that of those put aside, its query. θ is stepped along ∇_θ [F(θ) + β G(θ − α ∇F(θ))], differentiated through the
    virtual step. With `first_order` that is ∇F(θ) + β ∇G(θ'), θ' the point after it. At test there is no step.

    DomainBed's form (Gulrajani and Lopez-Paz, ICLR 2021) is `first_order: true`, `inner_optimizer: adam` with the rate
    of the outer one, and tasks with `pairing: pairs`, as many a step as there are domains in support.

    Differences:
    1. The paper sums losses over domains; F and G are means over the images of a side here, so its rates are to be
       multiplied by numbers of domains.
    2. The paper draws one split of the domains a step, and here each task of a step draws one; with one task a step it
       is the paper's. With pairs a step has one split, as DomainBed's.
    3. DomainBed divides the sum over pairs by the number of all domains; here it is divided by that of the pairs, which
       its Adam does not see. Adam's root has a term of 1e-8 under it.
    """

    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3}

    inner_lr: NonNegativeFloat = 1e-3
    """rate α of the virtual step"""
    inner_optimizer: InnerOptimizer = "sgd"
    """rule of the virtual step: plain gradient descent, or a fresh Adam"""
    first_order: bool = False
    """drop the derivative of the virtual step"""
    query_weight: NonNegativeFloat = 1.0
    """weight β of the loss on the domains that are put aside"""

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        def outputs_of(params: Params, examples: Examples) -> Tensor:
            return problem.predict(learned._replace(params=params), examples.x, phase)

        def support_loss(params: Params) -> Tensor:
            return problem.loss(outputs_of(params, episode.support), episode.support.y)

        ahead = descend(
            support_loss,
            learned.params,
            lambda step: self.inner_lr,
            num_steps=1,
            first_order=self.first_order,
            rule=InnerRule(self.inner_optimizer),
        ).params[-1]
        outputs = outputs_of(ahead, episode.query)
        of_support, of_query = support_loss(learned.params), problem.loss(outputs, episode.query.y)
        metrics = training_metrics(problem, of_query, outputs, episode.query.y, of_support)
        return of_support + self.query_weight * of_query, metrics
