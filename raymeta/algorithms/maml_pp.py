"""MAML++: six changes that make MAML easier to train, each with a switch of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.descent import RATES, Descent, LossReduction, adaptable, full_descent, steps_in
from raymeta.adaptation.outcome import multi_step_loss
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import DescentAlgorithm
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.convert import convert
from raymeta.models.layers.norm import Norm
from raymeta.models.layers.step_norm import StepNorm, with_step_norms
from raymeta.models.shapes import type_of
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tree import Params

STEP_WEIGHTS, FIRST_ORDER = "step_weights", "first_order"
"""Names of what depends on the epoch: a task of a step draws both, or neither, as every other task does."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MAMLPlusPlus(DescentAlgorithm):
    """Antoniou, Edwards, Storkey. How to train your MAML. ICLR 2019, arXiv:1810.09502.

    Inner: θ_{k+1} = θ_k − α_k ∇L_S(θ_k), θ_0 = φ, with one rate α_k for each parameter tensor and step. Outer: the mean
    over tasks of Σ_k w_k(e) L_Q(θ_k), differentiated in φ, rates and norms through all K steps. The six changes:
    - multi-step loss: the weights w_k(e) are 1/K at first and move to the last step in `multi_step_epochs` epochs e of
      `epoch_steps` outer steps; after them the last step alone counts (`multi_step_epochs: 0` switches it off);
    - derivative order: FOMAML in the first `first_order_epochs` epochs (0 switches it off);
    - `learned_rates`: α_k for each tensor and step; without it one fixed `inner_lr`;
    - `step_statistics`: batch norm's running statistics for each inner step, which --batch_norm running uses;
    - `step_affine`: batch norm's gain and shift for each inner step; norms are learned, and never adapt;
    - the outer rate falls along a cosine (`outer.schedule: constant` switches it off).
    A query after k steps meets the norms of step k − 1, in which θ_k was made.

    Differences from the paper and the authors' code:
    1. The first-order epochs are off, as in the released configurations; the paper has 50.
    2. There are K rates for each tensor, where the code holds K + 1, of which it uses K.
    3. A test prediction is that of one checkpoint, where the paper averages five.
    4. Statistics at test are those of the batch unless --batch_norm running is given: so does the released code,
       whatever it stores.
    """

    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3, "schedule": "cosine", "final_lr": 1e-5}

    inner_lr: NonNegativeFloat = 0.1
    """inner learning rate, where the learned ones begin"""
    inner_steps: PositiveInt = 5
    """inner steps K in training, for each of which rates and norms are there"""
    test_inner_steps: NonNegativeInt | None = None
    """inner steps at validation and test, at most `inner_steps`; as many unless given"""
    epoch_steps: PositiveInt = 500
    """outer steps of an epoch"""
    multi_step_epochs: NonNegativeInt = 10
    """epochs in which the query loss after every inner step counts"""
    first_order_epochs: NonNegativeInt = 0
    """epochs at the beginning without derivatives of inner gradients (the paper: 50)"""
    learned_rates: bool = True
    """learn a rate for each parameter tensor and inner step"""
    step_statistics: bool = True
    """keep batch norm's running statistics for each inner step"""
    step_affine: bool = True
    """learn batch norm's gain and shift for each inner step"""
    inner_loss_reduction: LossReduction = "mean"
    """`mean` cross-entropy, or `sum_over_classes`: `way` times that"""

    @model_validator(mode="after")
    def _every_test_step_is_trained(self) -> Self:
        if self.test_inner_steps is not None and self.test_inner_steps > self.inner_steps:
            raise ValueError(
                f"test_inner_steps {self.test_inner_steps} is above inner_steps {self.inner_steps}, and later steps "
                "have neither rates nor norms: raise inner_steps"
            )
        return self

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        model = super().network(spec, tasks)
        if not (self.step_statistics or self.step_affine):
            return model
        kinds = {"statistics": self.step_statistics, "affine": self.step_affine}
        return with_step_norms(convert(model), self.inner_steps, **kinds)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        learned = super().init(problem, params, generator)
        if not self.learned_rates:
            return learned
        rates = {RATES + n: params[n].new_full((self.inner_steps,), self.inner_lr) for n in adapted(problem, learned)}
        return learned._replace(params=params | rates)

    def outer_of(self, name: str) -> Mapping[str, Any]:
        return {"weight_decay": 0.0} if name.startswith(RATES) else {}

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        """What depends on the epoch, the same for all tasks; a compiler makes one graph for each set of names."""
        if not phase.training:
            return {}
        epoch, drawn = phase.step // self.epoch_steps, {}
        if epoch < self.multi_step_epochs:
            weights = torch.tensor(
                step_weights(self.inner_steps, epoch, self.multi_step_epochs), dtype=type_of(problem.model)
            )
            drawn[STEP_WEIGHTS] = weights.expand(len(keys), -1)
        if epoch < self.first_order_epochs:
            drawn[FIRST_ORDER] = torch.ones(len(keys), dtype=torch.bool)
        return drawn

    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        num_steps = steps_in(phase, self.inner_steps, self.test_inner_steps)
        if num_steps > self.inner_steps:
            raise ConfigError(
                f"maml_pp was trained for {self.inner_steps} inner steps, and later ones have neither rates nor norms: "
                f"ask for at most {self.inner_steps}"
            )
        names = adapted(problem, learned)
        return full_descent(
            problem,
            learned,
            support,
            phase,
            rates=lambda values, k: {n: values[RATES + n][k] for n in names} if self.learned_rates else self.inner_lr,
            num_steps=num_steps,
            reduction=self.inner_loss_reduction,
            adapted=names,
            rule=self.rule,
        )

    def drawn_descent(
        self, problem: Problem, learned: Learned, support: Examples, noise: Noise, phase: Phase
    ) -> Descent:
        return self.descent(problem, learned, support, phase)._replace(first_order=FIRST_ORDER in noise)

    def loss_weights(self, num_steps: int, noise: Noise) -> Mapping[int, float | Tensor]:
        if STEP_WEIGHTS not in noise:
            return super().loss_weights(num_steps, noise)
        return dict(enumerate(noise[STEP_WEIGHTS].unbind(), start=1))

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if STEP_WEIGHTS not in noise:
            return super().task_loss(problem, learned, episode, noise=noise, phase=phase)
        adaptation = self.adapt(problem, learned, episode.support, noise=noise, phase=phase)
        return multi_step_loss(problem, adaptation, episode.query, noise[STEP_WEIGHTS])


def adapted(problem: Problem, learned: Learned) -> tuple[str, ...]:
    """Names of the parameters that adapt: all but those of norms."""
    norms = [f"{name}." for name, m in problem.model.named_modules() if isinstance(m, Norm | StepNorm)]
    names = tuple(name for name in adaptable(problem, learned) if not name.startswith(tuple(norms)))
    if not names:
        raise ConfigError("the model has no parameters besides those of norms, which maml_pp does not adapt")
    return names


def step_weights(num_steps: int, epoch: int, epochs: int) -> list[float]:
    """w_k in `epoch` of `epochs`: equal at first, all but the last falling to 0.03 / K; their sum is 1."""
    floor = 0.03 / num_steps
    early = max(1 / num_steps - epoch / (num_steps * epochs), floor)
    return [early] * (num_steps - 1) + [1 - (num_steps - 1) * early]
