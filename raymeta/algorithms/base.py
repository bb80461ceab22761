"""What an algorithm is: an `adapt` function; its meta-gradient follows by differentiating the query loss through it.

Shape suffixes: T tasks, S support examples, Q query examples, K inner steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import torch
from pydantic import Field, PositiveFloat, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.checkpointing import checkpointed_gradient
from raymeta.adaptation.descent import Descent
from raymeta.adaptation.inner_rules import InnerOptimizer, InnerRule
from raymeta.adaptation.outcome import Adaptation, training_metrics
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.autodiff.failures import explain_failure
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.layers.norm import collect_statistics
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tree import Params


class Sums(NamedTuple):
    """A shard's share of an outer step: sums over its tasks, never means."""

    num_tasks: int
    gradient: Params
    state: Params
    metrics: dict[str, Tensor]


class Algorithm(ABC):
    """Base of all methods: frozen dataclasses whose fields are their hyper-parameters."""

    goals: ClassVar[tuple[Goal, ...]] = ("classification", "regression")
    uses_queries: ClassVar[bool] = True
    """whether training needs query examples"""
    splits_model: ClassVar[bool] = False
    """whether the model is taken apart into a body and a head"""
    uses_class_ids: ClassVar[bool] = False
    """whether training needs `Examples.class_id`"""
    outer: ClassVar[Mapping[str, Any]] = {}
    """outer-optimiser settings that replace the general defaults for this method"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        """Outputs of the model's head for `tasks`; None for a model that ends with features.

        A head of the training way serves test tasks of fewer classes by its first outputs. Raises `ConfigError` where
        a fixed head cannot serve: a test way above the training way.
        """
        if tasks.goal != "classification":
            return tasks.num_outputs
        train, test = tasks.size("train").way, tasks.size("test").way
        if train < test:
            raise ConfigError(
                f"tasks.train_way {train} is below tasks.way {test}, but this algorithm learns a head of fixed size: "
                "leave tasks.train_way out, raise it, or use --algorithm protonet"
            )
        return tasks.num_outputs if train == test else train

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        """What is learned, from the model's initial parameters; methods with more parameters add theirs."""
        return Learned(params, problem.running_statistics())

    def noise(self, problem: Problem, keys: Sequence[TaskKey], support: Examples, phase: Phase) -> Noise:
        """Random draws of a batch of tasks that `adapt` needs besides the episodes."""
        return {}

    @abstractmethod
    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        """Predictors before and after each inner step on `support` (one task, no task dimension)."""

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the outer loop minimises for one task, and its metrics."""
        adaptation = self.adapt(problem, learned, episode.support, noise=noise, phase=phase)
        outputs = adaptation.predictors[-1](episode.query.x)
        loss = problem.loss(outputs, episode.query.y)
        return loss, training_metrics(problem, loss, outputs, episode.query.y, adaptation.support_loss)

    def task_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Params, Params, dict[str, Tensor]]:
        """One task's (meta-gradient, new state, metrics): `task_loss` differentiated with respect to all parameters."""

        def loss_of(params: Params) -> tuple[Tensor, tuple[dict[str, Tensor], Params]]:
            now = learned._replace(params=params)
            if not learned.state:
                return _without_state(self.task_loss(problem, now, episode, noise=noise, phase=phase))
            with collect_statistics() as statistics:
                loss, metrics = self.task_loss(problem, now, episode, noise=noise, phase=phase)
            return loss, (metrics, {name: statistics[name] for name in learned.state})

        gradient, (_, (metrics, state)) = gradient_and_value(loss_of, learned.params, has_aux=True)
        return gradient, state, metrics

    def contribution(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> Sums:
        """A whole shard: the sum over tasks of gradients, states and metrics, in float64 and in task order.

        `episodes` and `noise` have a leading task dimension. Always grad inside, vmap outside: the other order is
        silently wrong at second order for fused normalisation.
        """

        def one(episode: Episode, noise: Noise) -> tuple[Params, Params, dict[str, Tensor]]:
            return self.task_gradient(problem, learned, episode, noise=noise, phase=phase)

        phase = phase._replace(way=phase.way or problem.way_of(episodes))
        sums = problem.sum_over_tasks(one, episodes, noise)
        return Sums(len(episodes.support.x), *sums)

    def scores(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> dict[str, Tensor]:
        """Query loss and accuracy of each task [T, K + 1] before and after each inner step; nothing is mutated."""

        def one(episode: Episode, noise: Noise) -> dict[str, Tensor]:
            adaptation = self.adapt(problem, learned, episode.support, noise=noise, phase=phase)
            steps = [problem.metrics(predict(episode.query.x), episode.query.y) for predict in adaptation.predictors]
            return {name: torch.stack([step[name] for step in steps]) for name in steps[0]}

        phase = phase._replace(way=phase.way or problem.way_of(episodes))
        with torch.no_grad():
            result: dict[str, Tensor] = problem.map_over_tasks(one, episodes, noise)
        return result

    def explained(self, problem: Problem, episode: Episode, error: Exception) -> Exception:
        """`error` with the layer or the loss that it came from and the way out, where torch could not do something."""
        x, y = episode.support.x, episode.support.y
        loss = (problem.own_loss, y) if problem.own_loss is not None else None
        able = {"has_first_order": hasattr(self, "first_order"), "vectorize": problem.vectorize}
        return explain_failure(problem.model, x, error, loss=loss, **able)  # type: ignore[arg-type]

    def fold_state(self, state: Params, mean: Params, momenta: Mapping[str, float]) -> Params:
        """The next state from this step's mean: running statistics move by the momentum of their layer."""
        return {name: value.lerp(mean[name].to(value.dtype), momenta[name]) for name, value in state.items()}


def _without_state(
    loss_and_metrics: tuple[Tensor, dict[str, Tensor]],
) -> tuple[Tensor, tuple[dict[str, Tensor], Params]]:
    loss, metrics = loss_and_metrics
    return loss, (metrics, {})


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DescentAlgorithm(Algorithm):
    """Base of the methods that adapt by gradient descent, whose inner steps can be checkpointed."""

    inner_optimizer: InnerOptimizer = "sgd"
    """rule of the inner steps: plain gradient descent, or `adam` (fresh moments for each task)"""
    inner_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """momentum of inner `sgd`: the step follows v ← momentum · v + gradient"""
    inner_clip_norm: PositiveFloat | None = None
    """largest global norm of an inner gradient; larger ones are scaled down"""

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.inner_momentum and self.inner_optimizer != "sgd":
            raise ValueError("inner_momentum is of inner_optimizer sgd: leave it out with adam, which has its own")
        return self

    @property
    def rule(self) -> InnerRule:
        return InnerRule(self.inner_optimizer, self.inner_momentum, self.inner_clip_norm)

    @abstractmethod
    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        """The inner loop on `support`; of `learned.params` it may use the names only."""

    def loss_weights(self, num_steps: int) -> dict[int, float]:
        """Weights of the query losses in the outer loss, by the inner steps done before each."""
        return {num_steps: 1.0}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        return self.descent(problem, learned, support, phase).adaptation(learned.params)

    def task_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Params, Params, dict[str, Tensor]]:
        if problem.checkpoint_inner_steps:
            descent = self.descent(problem, learned, episode.support, phase)
            if descent.num_steps and not descent.first_order:
                return checkpointed_gradient(problem, learned, episode, descent, self.loss_weights(descent.num_steps))
        return super().task_gradient(problem, learned, episode, noise=noise, phase=phase)
