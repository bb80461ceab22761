"""What an algorithm is: an `adapt` function; its meta-gradient follows by differentiating the query loss through it.

Shape suffixes: T tasks, S support examples, Q query examples, K inner steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol, Self, cast

import torch
from pydantic import Field, PositiveFloat, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.checkpointing import checkpointed_gradient
from raymeta.adaptation.descent import Descent
from raymeta.adaptation.inner_rules import InnerOptimizer, InnerRule
from raymeta.adaptation.outcome import Adaptation, training_metrics
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.autodiff.failures import explain_failure
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.norm import collect_statistics
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.trackers.axes import INNER_STEP, AxisName
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.trackers.scores import OF_GOAL, ScoreName
from raymeta.tree import Params

TASK_GRADIENT = "task_gradient"
"""The method that an outer step computes of every task unless it says otherwise."""
_ROW = "row|"
RIGHT, CLASS_ID = "right|query", "class_id|query"
"""Names among the scores of a batch of tasks of what is told query by query."""


class Algorithm(ABC):
    """Base of all methods: frozen dataclasses whose fields are their hyper-parameters.

    A worker computes any method of an algorithm task by task, which gives a `Part`; the driver calls `step`, which asks
    for maps of such methods over the tasks of an outer step and updates what is learned in between.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification", "regression")
    uses_queries: ClassVar[bool] = True
    """whether training needs query examples"""
    splits_model: ClassVar[bool] = False
    """whether the model is taken apart into a body and a head"""
    uses_class_ids: ClassVar[bool] = False
    """whether training needs `Examples.class_id`"""
    queries_apart: ClassVar[bool] = False
    """whether queries pass the network after adapting and apart from the support, so that they can be mixed with it"""
    reads_inputs: ClassVar[bool] = False
    """whether it reads inputs besides through the model"""
    at_once: ClassVar[bool] = False
    """whether the gradient of a shard is taken once, of the sum of its losses: for methods whose loss holds no
    derivative, since a gradient for each task is as large as the network"""
    outer: ClassVar[Mapping[str, Any]] = {}
    """outer-optimiser settings that replace the general defaults for this method"""
    predicts: ClassVar[bool] = True
    """whether it adapts to predictors; False for search, control and learned optimisers, which give `scores` alone"""
    score: ClassVar[ScoreName | None] = None
    """name of its score in `SCORES`; what the goal of the tasks says unless given"""
    axis: ClassVar[AxisName] = INNER_STEP
    """what its scores of a task stand over, in `AXES`"""

    @property
    def has_own_step(self) -> bool:
        """Whether an outer step is anything but one map of `task_gradient` and one update."""
        return type(self).step is not Algorithm.step

    def score_of(self, goal: Goal) -> ScoreName:
        """Name of its score in `SCORES` for tasks of a goal: its own, or that of the goal."""
        return self.score or OF_GOAL[goal]

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

    def doubts(self, steps: int, *, started: bool = False) -> Sequence[str]:
        """What a person should be warned of in a run of so many outer steps, `started` from parameters of another."""
        return ()

    def starts(self) -> Mapping[str, str]:
        """Where networks beside the model take their first weights from: a source as `start` takes it, by the name of
        the network, which is that of the option, too."""
        return {}

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        """The model of `spec` for `tasks`; a method with networks of its own puts them `Beside` it."""
        return spec.build(tasks.input_shape, self.num_outputs(tasks))

    def outer_of(self, name: str) -> Mapping[str, Any]:
        """Settings of the outer optimiser that differ for the learned parameter `name`, such as `lr`."""
        return {}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        """What is learned, from the model's initial parameters; methods with more parameters add theirs."""
        return Learned(params, problem.running_statistics())

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
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
        loss = (adaptation.loss or problem.loss)(outputs, episode.query.y)
        metrics = training_metrics(problem, loss, outputs, episode.query.y, adaptation.support_loss)
        return loss if adaptation.penalty is None else loss + adaptation.penalty, metrics

    def task_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """One task's meta-gradient, new state and metrics: `task_loss` differentiated in all parameters."""

        def loss_of(params: Params) -> tuple[Tensor, tuple[dict[str, Tensor], Params]]:
            now = learned._replace(params=params)
            if not learned.state:
                return _without_state(self.task_loss(problem, now, episode, noise=noise, phase=phase))
            with collect_statistics() as statistics:
                loss, metrics = self.task_loss(problem, now, episode, noise=noise, phase=phase)
            return loss, (metrics, {name: statistics[name] for name in learned.state})

        gradient, (_, (metrics, state)) = gradient_and_value(loss_of, learned.params, has_aux=True)
        return Part(gradient | state, metrics)

    def contribution(
        self,
        problem: Problem,
        learned: Learned,
        episodes: Episode,
        *,
        noise: Noise,
        phase: Phase,
        function: str = TASK_GRADIENT,
        rows: Params | None = None,
    ) -> Part:
        """A whole shard: what the method `function` gives, its sums and metrics added over tasks, in float64.

        `episodes`, `noise` and `rows` have a leading task dimension; a method that is given rows takes those of its
        task as `rows`. Grad inside, vmap outside, unless a method is `at_once`: the other order is silently wrong at
        second order for fused normalisation.
        """
        method: Callable[..., Part] = getattr(self, function)

        def one(episode: Episode, drawn: Noise) -> Part:
            if rows is None:
                return method(problem, learned, episode, noise=drawn, phase=phase)
            own = {name.removeprefix(_ROW): value for name, value in drawn.items() if name.startswith(_ROW)}
            noise = {name: value for name, value in drawn.items() if not name.startswith(_ROW)}
            return method(problem, learned, episode, noise=noise, rows=own, phase=phase)

        phase = phase._replace(way=phase.way or problem.way_of(episodes))
        if self.at_once and function == TASK_GRADIENT and problem.vectorize == "vmap" and not learned.state:
            return self._gradient_of_sum(problem, learned, episodes, noise, phase)
        drawn = noise if rows is None else noise | {_ROW + name: value for name, value in rows.items()}
        return problem.sum_over_tasks(one, episodes, drawn)

    def _gradient_of_sum(
        self, problem: Problem, learned: Learned, episodes: Episode, noise: Noise, phase: Phase
    ) -> Part:
        """The sum of `task_gradient` over tasks; grad outside of vmap is right here, as no loss holds a derivative."""

        def loss_of(params: Params) -> tuple[Tensor, dict[str, Tensor]]:
            now = learned._replace(params=params)
            losses, metrics = problem.map_over_tasks(
                lambda episode, own: self.task_loss(problem, now, episode, noise=own, phase=phase), episodes, noise
            )
            return losses.sum(), metrics

        gradient, (_, metrics) = gradient_and_value(loss_of, learned.params, has_aux=True)
        sums = {name: value.double() for name, value in gradient.items()}
        return Part(sums, {name: value.sum(0, dtype=torch.float64) for name, value in metrics.items()})

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        """One outer step, on the driver; returns metrics besides those of the tasks.

        By default one map of `task_gradient` and one update with its mean. Laws for others: everything that a step
        changes lies in `outer`, and nothing random is drawn here (workers draw from the keys of their tasks).
        """
        return {OUTER_GRAD_NORM: outer.descend(compute(), self)}

    def found(self, problem: Problem, learned: Learned) -> Mapping[str, Any]:
        """What a search found, for people and for `summary.json`; nothing unless a method says so."""
        return {}

    def scores(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> dict[str, Tensor]:
        """Query loss and accuracy of each task [T, K + 1] before and after each inner step; nothing is mutated.

        Of queries with a class, `RIGHT` [T, Q] says which are classified rightly in the end, and `CLASS_ID` whose.
        """
        by_class = problem.has_accuracy and episodes.query.class_id is not None and episodes.query.y.dim() == 2

        def one(episode: Episode, noise: Noise) -> dict[str, Tensor]:
            adaptation = self.adapt(problem, learned, episode.support, noise=noise, phase=phase)
            query, own = episode.query, (adaptation.loss, adaptation.point)
            outputs = [predict(query.x) for predict in adaptation.predictors]
            steps = [problem.metrics(output, query.y, *own) for output in outputs]
            scores = {name: torch.stack([step[name] for step in steps]) for name in steps[0]}
            return scores | ({RIGHT: outputs[-1].argmax(1) == query.y} if by_class else {})

        phase = phase._replace(way=phase.way or problem.way_of(episodes))
        with torch.no_grad():
            result: dict[str, Tensor] = problem.map_over_tasks(one, episodes, noise)
        return result | ({CLASS_ID: cast(Tensor, episodes.query.class_id)} if by_class else {})

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


class Total(Protocol):
    """What a map over the tasks of an outer step gives."""

    num_tasks: int

    def sums(self) -> Params:
        """Sums over tasks, in float64."""

    def means(self) -> Params:
        """The sums divided by the number of tasks, in float64."""

    def tasks(self) -> Params:
        """The rows of all tasks [T, ...], in their order and in memory of one's own."""


class Compute(Protocol):
    """Asks workers for a map of one of the algorithm's methods over the tasks of an outer step."""

    def __call__(
        self,
        function: str = TASK_GRADIENT,
        *,
        given: Mapping[str, Tensor] | None = None,
        rows: Mapping[str, Tensor] | None = None,
        of: int | None = None,
    ) -> Total:
        """`given` reaches every task as `learned.given`, and `rows` [T, ...] each task as its own. `of` is the step
        whose tasks are meant; the current one unless given."""


class Outer(Protocol):
    """What an outer step may read and change: the driver's optimiser."""

    params: Params
    state: Params
    memory: Params
    """tensors of the driver's alone, which a checkpoint holds too"""

    def descend(self, total: Any, algorithm: Algorithm) -> float:
        """One step with the mean of everything that `task_gradient` sums; returns the gradient's norm."""

    def update(self, gradients: Mapping[str, Tensor]) -> float:
        """One step of the parameters that are named; returns the norm of their gradient."""

    def preview(self, gradients: Mapping[str, Tensor]) -> Params:
        """All parameters as they would be after `update`, which is not done."""

    def assign(self, values: Mapping[str, Tensor]) -> None:
        """Set the parameters that are named."""

    def lr(self, name: str) -> float:
        """The learning rate of a parameter in this step."""


class ScoredAlgorithm(Algorithm):
    """Base of the methods without predictors (search, control, learned optimisers): they give scores alone."""

    predicts = False

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        raise NotImplementedError(f"{type(self).__name__} has no predictors")

    @abstractmethod
    def scores(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> dict[str, Tensor]:
        """Scores of each task [T, K + 1]."""


_SEVERAL = "several times a step, and statistics that are kept would not know which time counts"


class TrainedModel(Algorithm):
    """Base of the methods that train one model on one training problem, of which tasks are batches.

    The support sets of a step are its training examples, whose labels may be wrong; the query sets are its clean ones.
    Nothing adapts to a task: what is scored is the model on the queries.
    """

    one_by_one: ClassVar[bool] = False
    """whether it takes the loss of each example by itself, in which a weight of its class cancels"""
    passes_once: ClassVar[bool] = False
    """whether a step passes the network once, so that running statistics know which batch counts"""

    def weigh(
        self, problem: Problem, learned: Learned, episode: Episode, *, phase: Phase
    ) -> tuple[Tensor, Tensor] | None:
        """Loss and weight of each support example [n] of a training task; None unless a method weighs examples."""
        return None

    def learned_parts(self, params: Params) -> Mapping[str, Params]:
        """Of the networks' parameters those that are stepped together, by what they are: `freeze` must leave some."""
        return {}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        for what, part in self.learned_parts(params).items():
            if not part:
                raise ConfigError(
                    f"freeze leaves no parameter of {what} to be learned, and {type(self).__name__} steps them: freeze "
                    "less"
                )
        if problem.batch_norm == "support" or (problem.batch_norm == "running" and not self.passes_once):
            raise ConfigError(
                f"{type(self).__name__} passes the network "
                + ("on batches of examples, not on tasks with a support set" if self.passes_once else _SEVERAL)
                + ": use --batch_norm transductive, or a model with another norm"
            )
        return super().init(problem, params, generator)

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        return Adaptation([lambda x: problem.predict(learned, x, phase)])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DescentAlgorithm(Algorithm):
    """Base of the methods that adapt by gradient descent, whose inner steps can be checkpointed."""

    queries_apart: ClassVar[bool] = True

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

    def drawn_descent(
        self, problem: Problem, learned: Learned, support: Examples, noise: Noise, phase: Phase
    ) -> Descent:
        """`descent`, for methods whose inner loop depends on what `noise` gave too."""
        return self.descent(problem, learned, support, phase)

    def loss_weights(self, num_steps: int, noise: Noise) -> Mapping[int, float | Tensor]:
        """Weights of the query losses in the outer loss, by the inner steps done before each."""
        return {num_steps: 1.0}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        return self.drawn_descent(problem, learned, support, noise, phase).adaptation(learned.params)

    def task_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        if problem.checkpoint_inner_steps:
            descent = self.drawn_descent(problem, learned, episode.support, noise, phase)
            if descent.num_steps and not descent.first_order:
                weights = self.loss_weights(descent.num_steps, noise)
                return checkpointed_gradient(problem, learned, episode, descent, weights)
        return super().task_gradient(problem, learned, episode, noise=noise, phase=phase)
