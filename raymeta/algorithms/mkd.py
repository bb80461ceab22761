"""Meta knowledge distillation: the temperatures of teacher and student are learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass

from raymeta.adaptation.distillation import Temperatures
from raymeta.adaptation.problem import Learned, Problem
from raymeta.algorithms.distillation import Distillation
from raymeta.options import STRICT
from raymeta.tree import Params

LOG_TEMPERATURE = "log_temperature/"
"""Prefix of the logarithms of both temperatures among the parameters."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MKD(Distillation):
    """Liu, Liu, Li, Liu. Meta Knowledge Distillation. arXiv:2202.07940.

    The teacher stays as it is after its own training. What learns to teach are the temperatures τ_T and τ_S of
    KD(S, T) = τ_T τ_S KL(softmax(T / τ_T) ‖ softmax(S / τ_S)). With the training batch (support) and the quiz (query) a
    step is:
    1. S'(τ) = S − λ ∇_S ℓ(S, T; τ), where ℓ = α KD + (1 − α) CE;
    2. log τ is stepped along ∇ CE(S'(τ); quiz), differentiated through 1.;
    3. S ← S − η ∇_S ℓ(S, T; τ) with the new τ, on the same batch.

    Differences from the paper:
    1. Logarithms of the temperatures are learned, so that these stay positive, by Adam at `temperature_lr`.
    2. KD has the factor τ_T τ_S, which is Hinton's τ² where both begin, and which is differentiated, too.
    3. No strong augmentation: training images are what the tasks give.
    4. The virtual step is a plain gradient step, whatever the outer optimiser, its momentum and decay.
    """

    temperature_lr: PositiveFloat = 0.01
    """learning rate of the logarithms of both temperatures"""

    def is_meta(self, name: str) -> bool:
        return name.startswith(LOG_TEMPERATURE)

    def outer_of(self, name: str) -> Mapping[str, Any]:
        if not self.is_meta(name):
            return super().outer_of(name)
        return {"lr": self.temperature_lr, "optimizer": "adam", "weight_decay": 0.0, "schedule": "constant"}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        learned = super().init(problem, params, generator)
        start = next(iter(params.values())).new_tensor(math.log(self.temperature))
        own = {f"{LOG_TEMPERATURE}{name}": start.clone() for name in Temperatures._fields}
        return learned._replace(params=learned.params | own)

    def temperatures(self, params: Params) -> Temperatures:
        return Temperatures(*(params[f"{LOG_TEMPERATURE}{name}"].exp() for name in Temperatures._fields))
