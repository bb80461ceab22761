"""ENAS: a controller learns which architectures are good, of a network whose weights they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.outcome import training_metrics
from raymeta.adaptation.policy import BASELINE, moved, score_function
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import Compute, Outer
from raymeta.algorithms.shared_weights import ALPHA, SharedWeightsSearch, is_architecture
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import BODY, Beside
from raymeta.models.layers.controller import Controller
from raymeta.models.supernet import SearchNetwork
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Noise
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.tree import Params

CONTROLLER = "controller"
"""Name of the network that chooses."""
REWARD = "accuracy"
"""Name of the row of rewards."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ENAS(SharedWeightsSearch):
    """Pham, Guan, Zoph, Le, Dean. Efficient Neural Architecture Search via Parameter Sharing. ICML 2018,
    arXiv:1802.03268.

    A controller π_ψ, an LSTM, chooses for each node of a cell two earlier states and an operation on each. All
    architectures share the weights w. A step is:
    1. w ← w − η ∇_w L_train(w, a) on the support sets, each task with an architecture a ~ π_ψ of its own, by the outer
       optimiser;
    2. ψ follows (R − b) ∇_ψ log π_ψ(a), where R is the accuracy of another a ~ π_ψ on a query set with the new w, plus
       −log π_ψ(a) at `entropy_weight`, and b is the moving mean of accuracies before this step.
    Nothing is differentiated through an architecture. What is found, and tested, is the architecture with the highest
    accuracy among those that 2. drew in the last step; `--model derived --model.genotype FOLDER` trains it.

    Differences from the paper:
    1. It alternates 1. and 2. step by step, not pass by pass, and finds the best of a step's samples, each judged on
       a query set of its own.
    2. Logits have neither temperature nor the hyperbolic tangent; earlier states are chosen by number, not by
       attention; the two states of a node are different ones.
    3. The first step leaves ψ as it is, so that b is known before anything is learned.
    4. Operations that were not chosen are computed and weighted by exactly zero, so a step costs that of the whole
       network.
    5. `outer.clip_norm` bounds the gradient of ψ, too, by itself.
    """

    outer: ClassVar[dict[str, Any]] = {
        "optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "cosine",
        "final_lr": 0.001, "clip_norm": 5.0,
    }  # fmt: skip

    hidden: PositiveInt = 100
    """units of each LSTM layer of the controller"""
    layers: PositiveInt = 1
    """LSTM layers of the controller"""
    controller_lr: PositiveFloat = 3.5e-4
    """learning rate of the controller"""
    baseline_decay: float = Field(default=0.99, ge=0, lt=1)
    """share of the moving mean of accuracies that stays in each step"""
    entropy_weight: NonNegativeFloat = 1e-4
    """weight of −log π(a) beside the accuracy, which keeps the controller from settling early"""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = super().network(spec, tasks)
        if not isinstance(body, SearchNetwork) or "none" not in body.operations:
            raise ConfigError("enas draws architectures of --model supernet, whose operations must hold none")
        sizes = body.choice_sizes
        return Beside(body, **{CONTROLLER: Controller(max(sizes), self.hidden, self.layers, sizes)})

    def learned_parts(self, params: Params) -> Mapping[str, Params]:
        return {"the weights": weights(params), "the controller": controller_of(params)}

    def outer_of(self, name: str) -> Mapping[str, Any]:
        if not is_controller(name):
            return {}
        own = {"lr": self.controller_lr, "weight_decay": 0.0}
        return own | {"optimizer": "adam", "schedule": "constant"}

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        """Uniform numbers [T, 2, choices]: of the architecture that is trained, and of the one that is judged."""
        if not phase.training:
            return {}
        shape = (2, len(body_of(problem).choice_sizes))
        return {"draws": torch.from_numpy(np.stack([key.generator("noise").random(shape) for key in keys]))}

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        norm = outer.update(compute("weights_gradient").means())
        baseline = outer.memory.get(BASELINE)
        if baseline is None:
            total = compute("judged")
        else:
            total = compute("policy_gradient", given={BASELINE: baseline})
            outer.update(total.means())
        drawn = total.tasks()
        best = drawn[REWARD].argmax()
        outer.assign({name: value[best] for name, value in drawn.items() if is_architecture(name)})
        outer.memory = outer.memory | {BASELINE: moved(baseline, drawn[REWARD], self.baseline_decay)}
        return {OUTER_GRAD_NORM: norm}

    def weights_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """∇_w L_train of an architecture that the controller chooses."""
        _, alpha = self.chosen(problem, learned, noise["draws"][0])
        there = learned._replace(params=learned.params | alpha)
        return self.gradient_on_support(problem, there, weights(learned.params), episode, phase)

    def judged(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """Another architecture that it chooses, with its accuracy on the queries."""
        return self._judged(problem, learned, episode, noise, phase)[1]

    def policy_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """The same with −(R − b) ∇ log π(a)."""
        choices, part = self._judged(problem, learned, episode, noise, phase)
        own = controller_of(learned.params)
        gradient = score_function(
            problem, CONTROLLER, learned, own, choices, part.rows[REWARD], entropy_weight=self.entropy_weight
        )
        return part._replace(sums=gradient)

    def chosen(self, problem: Problem, learned: Learned, draws: Tensor) -> tuple[Tensor, Params]:
        """What uniform numbers [choices] choose, and the architecture parameters that stand for it."""
        choices = problem.beside(CONTROLLER, learned, draws, sample=True).detach()
        alpha = body_of(problem).alpha_of(choices)
        return choices, {f"{BODY}{ALPHA}{kind}": value for kind, value in alpha.items()}

    def _judged(
        self, problem: Problem, learned: Learned, episode: Episode, noise: Noise, phase: Phase
    ) -> tuple[Tensor, Part]:
        choices, alpha = self.chosen(problem, learned, noise["draws"][1])
        outputs = problem.predict(learned._replace(params=learned.params | alpha), episode.query.x, phase).detach()
        loss = problem.loss(outputs, episode.query.y)
        reward = problem.metrics(outputs, episode.query.y)["accuracy"]
        metrics = training_metrics(problem, loss, outputs, episode.query.y, None) | self.shares(problem, alpha)
        return choices, Part(metrics=metrics, rows={REWARD: reward, **alpha})


def body_of(problem: Problem) -> SearchNetwork:
    """The search network beside the controller."""
    body = problem.model.get_submodule(BODY.rstrip("."))
    assert isinstance(body, SearchNetwork)
    return body


def is_controller(name: str) -> bool:
    """Whether a learned parameter is one of the controller."""
    return name.startswith(f"{CONTROLLER}.")


def controller_of(params: Params) -> Params:
    """The parameters ψ of the controller."""
    return {name: value for name, value in params.items() if is_controller(name)}


def weights(params: Params) -> Params:
    """The weights w that all architectures share."""
    return {name: v for name, v in params.items() if not is_controller(name) and not is_architecture(name)}
