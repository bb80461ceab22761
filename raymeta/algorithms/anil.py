"""ANIL: almost no inner loop, for only the head adapts; or BOIL, where only the body does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.descent import Descent, LossReduction, fixed_rate_descent, loss_scale, steps_in
from raymeta.adaptation.outcome import Predictor, once
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import DescentAlgorithm
from raymeta.autodiff.recompute import Link
from raymeta.errors import ConfigError
from raymeta.options import STRICT
from raymeta.tasks.episodes import Examples
from raymeta.tree import Params

FEATURES = "support_features|"
"""Of the support set, computed once; no parameter's name holds a bar."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ANIL(DescentAlgorithm):
    """Raghu, Raghu, Bengio, Vinyals. Rapid Learning or Feature Reuse? ICLR 2020.

    With φ = (body ψ, head h), inner: h_{k+1} = h_k − α ∇_h L_S(ψ, h_k), ψ fixed. Outer: ∇_(ψ,h) L_Q(ψ, h_K), through
    all K steps of the head. Equals MAML with rate 0 on the body; the support set passes the body once.

    With `adapts: body` it is BOIL (Oh, Yoo, Kim, Yun. BOIL: Towards Representation Change for Few-shot Learning. ICLR
    2021): ψ_{k+1} = ψ_k − α ∇_ψ L_S(ψ_k, h), h fixed in the inner loop. Equals MAML with rate 0 on the head.
    """

    splits_model: ClassVar[bool] = True

    adapts: Literal["head", "body"] = "head"
    """what the inner steps change: the `head` (ANIL), or the `body` before it (BOIL)"""
    inner_lr: NonNegativeFloat = 0.1
    """inner learning rate α of what adapts"""
    inner_steps: NonNegativeInt = 5
    """inner steps K in training"""
    test_inner_steps: NonNegativeInt | None = None
    """inner steps at validation and test; the same as `inner_steps` unless given"""
    first_order: bool = False
    """drop the derivatives of the inner gradients"""
    inner_loss_reduction: LossReduction = "mean"
    """`mean` cross-entropy, or `sum_over_classes`: `way` times that"""

    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        names = tuple(name for name in learned.params if name in problem.param_names)
        head = tuple(name for name in names if name.startswith(problem.head_prefix))
        body = tuple(name for name in names if name not in head)
        if not (head if self.adapts == "head" else body):
            what = f"the head {problem.head_name}" if self.adapts == "head" else f"all before {problem.head_name}"
            raise ConfigError(f"{what} has no learnable parameters, so nothing would adapt")
        if self.adapts == "body":
            return fixed_rate_descent(self, problem, learned, support, phase, body)
        scale = loss_scale(self.inner_loss_reduction, phase)

        def features(values: Params) -> Params:
            return {FEATURES: problem.features(learned._replace(params=values), support.x, phase)}

        def classify(values: Params, z: Tensor) -> Tensor:
            return problem.of_way(problem.classify(values, z), phase)

        def support_loss(values: Params) -> Tensor:
            return scale * problem.loss(classify(values, values[FEATURES]), support.y)

        def predictors(values: Params, heads: Sequence[Params]) -> list[Predictor]:
            here = learned._replace(params=values)
            embed = once(lambda x: problem.features(here, x, phase, support_x=support.x))
            return [partial(lambda head, x: classify(head, embed(x)), head) for head in heads]

        return Descent(
            adapted=head,
            fixed=(FEATURES,),
            queried=names,
            loss=support_loss,
            rates=lambda values, step: self.inner_lr,
            predictors=predictors,
            num_steps=steps_in(phase, self.inner_steps, self.test_inner_steps),
            first_order=self.first_order,
            prepare=Link(body, features),
            rule=self.rule,
        )
