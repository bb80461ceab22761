"""Two small tasks of each kind, computed before a run begins: what cannot be computed is told before work is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raymeta.adaptation.head import require_head
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import TASK_GRADIENT, Algorithm
from raymeta.autodiff.derivatives import whole_graphs
from raymeta.autodiff.failures import exact_attention
from raymeta.autodiff.surroundings import put_back, seeded_by
from raymeta.engine.driver.outer import Moment, OuterOptimizer, OuterOptions
from raymeta.engine.fold import Total
from raymeta.engine.worker.memory_errors import is_memory_error
from raymeta.errors import ConfigError, NotTwiceDifferentiable
from raymeta.keys import Split, TaskKey
from raymeta.models.shapes import type_of
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Examples, in_type, rows_of, stack_episodes
from raymeta.tasks.inputs import Inputs, each_input
from raymeta.tree import Layout, Params, outer_type

NUM_TASKS = 2
"""Tasks that are computed together: one alone lies in memory as no task beside others does."""
PER_CLASS = 2
"""Examples of a class on each side of a rehearsed episode: the layers are the same with few."""
FIRST = 8
"""Examples of a rehearsed batch of one training problem."""


def rehearse(
    algorithm: Algorithm, problem: Problem, learned: Learned, tasks: TaskSet, *, seed: int, splits: Iterable[Split]
) -> None:
    """Compute two tasks of each of `splits`: a meta-gradient for `train`, scores after one inner step for the others.

    Everything runs on the CPU, as `problem` says, and leaves the model as it was.

    Raises `NotTwiceDifferentiable` naming a layer or the loss that lacks a derivative or cannot be vectorised, and
    `ConfigError` for a model or a loss that the method would silently get wrong.
    """
    for split in splits:
        keys = [TaskKey(seed, split, 0, index) for index in range(NUM_TASKS)]
        episodes = [in_type(type_of(problem.model), few_of(tasks, key)) for key in keys]
        with seeded_by(seed), exact_attention(), whole_graphs():
            if split == "train" and (algorithm.predicts or not algorithm.has_own_step):  # else nobody calls the model
                require_computable(algorithm, problem, learned, episodes[0])
            _compute(algorithm, problem, learned, keys, episodes)


def _compute(
    algorithm: Algorithm, problem: Problem, learned: Learned, keys: Sequence[TaskKey], episodes: Sequence[Episode]
) -> None:
    training = keys[0].split == "train"
    batch = stack_episodes(episodes)
    problem.set_training(training)
    try:
        if training:
            take_two_steps(algorithm, problem, learned, keys, batch)
        else:
            phase = Phase(training=False, inner_steps=1, way=problem.way_of(batch))
            noise = algorithm.noise(problem, keys, batch, phase)
            algorithm.scores(problem, learned, batch, noise=noise, phase=phase)
    except ConfigError:
        raise
    except Exception as error:
        if not is_memory_error(error):  # a run takes fewer tasks at once then
            raise algorithm.explained(problem, episodes[0], error) from error
    finally:
        problem.set_training(True)


def take_two_steps(
    algorithm: Algorithm, problem: Problem, learned: Learned, keys: Sequence[TaskKey], batch: Episode
) -> None:
    """Two outer steps of the algorithm on copies of what is learned: a second one, for what is carried over.

    Raises `ConfigError` where running statistics are learned, but a step of the method's own leaves them as they are.
    """
    dtype = type_of(problem.model)
    wide = [{name: value.to(outer_type(value.dtype)) for name, value in part.items()} for part in learned[:2]]
    outer = OuterOptimizer(Learned(*wide), OuterOptions(), algorithm.outer_of, apart=algorithm.has_own_step)
    for step in range(2):
        outer.begin(Moment(step, 2, Layout.of(outer.state), problem.momenta()))
        phase = Phase(step=step, way=problem.way_of(batch))
        algorithm.step(outer, Here(algorithm, problem, outer, keys, batch, phase, dtype), phase)
    if learned.state and all(torch.equal(value, wide[1][name]) for name, value in outer.state.items()):
        raise ConfigError(
            f"batch_norm running: the step of {type(algorithm).__name__} does not move the running statistics: use "
            "--batch_norm transductive, or outer.descend in its step"
        )


class Here(NamedTuple):
    """`compute` of `Algorithm.step` in this process, on one batch of tasks."""

    algorithm: Algorithm
    problem: Problem
    outer: OuterOptimizer
    keys: Sequence[TaskKey]
    batch: Episode
    phase: Phase
    dtype: torch.dtype

    def __call__(
        self,
        function: str = TASK_GRADIENT,
        *,
        given: Mapping[str, Tensor] | None = None,
        rows: Mapping[str, Tensor] | None = None,
        of: int | None = None,
    ) -> Total:
        learned = Learned(*map(self._narrow, (self.outer.params, self.outer.state, given or {})))
        noise = self.algorithm.noise(self.problem, self.keys, self.batch, self.phase)
        own = None if rows is None else self._narrow(rows)
        options: Any = {"noise": noise, "phase": self.phase, "function": function, "rows": own}
        part = self.algorithm.contribution(self.problem, learned, self.batch, **options)
        layout = Layout.of(part.sums)
        found = {name: row.detach().to(outer_type(row.dtype)).numpy() for name, row in part.rows.items()}
        vector = layout.flatten(part.sums).detach().double().numpy()
        return Total(len(self.keys), vector, {}, (), (found,) if found else (), layout)

    def _narrow(self, values: Mapping[str, Tensor]) -> Params:
        """In the type of the network, and in memory of their own."""
        return {n: v.to(self.dtype if v.is_floating_point() else v.dtype, copy=True) for n, v in values.items()}


def require_computable(algorithm: Algorithm, problem: Problem, learned: Learned, episode: Episode) -> None:
    """Raise `ConfigError` where one task would be computed without an error and yet be wrong."""
    problem.set_training(True)
    x = episode.support.x
    try:
        _require_connected(problem, learned, x)
        if algorithm.splits_model:
            for training in (False, True):
                problem.set_training(training)
                require_head(problem, learned, x)
        if problem.batch_norm == "support":
            _require_own_rows(problem, learned, x)
        if algorithm.predicts:
            _require_judgeable(algorithm, problem, learned, episode)
    except (RuntimeError, TypeError) as error:
        raise algorithm.explained(problem, episode, error) from error


def _require_connected(problem: Problem, learned: Learned, x: Inputs) -> None:
    """Raise `ConfigError` where the outputs depend on no learned parameter, so that their gradient would be zero."""
    params: Params = {name: value.detach().requires_grad_() for name, value in learned.params.items()}
    moment = problem.surroundings.now(learned.params)
    with torch.enable_grad(), problem.undisturbed(), _hooks_told(problem):
        outputs = problem.forward(learned._replace(params=params), x, Phase())
        if problem.checkpoint_inner_steps:
            _require_forgotten(problem, problem.forward(detached(learned), x, Phase()))
        put_back(moment)
        constant = problem.forward(detached(learned), x, Phase())
    put_back(moment)
    if constant.requires_grad:
        raise ConfigError(
            "the outputs of the model depend on parameters that are not those it was given: look for functions and "
            "hooks that keep the model (self.f = lambda z: z * self.scale, a replaced forward, weak references) and "
            "read self in forward instead, and for derivatives that forward itself takes"
        )
    if not outputs.requires_grad:
        raise ConfigError(
            "the outputs of the model do not depend on its parameters as far as derivatives see: look for detach(), "
            ".data, torch.no_grad(), argmax or numpy in its forward"
        )


def _require_forgotten(problem: Problem, next_outputs: Tensor) -> None:
    """What a call keeps on the model must not carry derivatives to the next, which is computed again without it."""
    if next_outputs.requires_grad:
        raise ConfigError(
            "the model keeps what it computed from its parameters and uses it in its next call (look for "
            f"{', '.join(problem.surroundings.changed()) or 'functools.cache'}), which checkpoint_inner_steps cannot "
            "compute again: leave it out, or compute the kept values in every forward"
        )


def detached(learned: Learned) -> Learned:
    return learned._replace(params={name: value.detach() for name, value in learned.params.items()})


@contextmanager
def _hooks_told(problem: Problem) -> Iterator[None]:
    """Hooks that forward puts on its tensors are not called where derivatives are taken side by side."""
    tensor: Any = torch.Tensor
    before = tensor.register_hook

    def told(*args: object) -> object:
        raise NotTwiceDifferentiable(
            "the forward of the model registers hooks on tensors, which are not called where tasks are vectorised: set "
            "vectorize: loop (--vectorize loop), or write the change of the gradient as a torch.autograd.Function"
        )

    if problem.vectorize == "vmap":
        tensor.register_hook = told
    try:
        yield
    finally:
        tensor.register_hook = before


def _require_judgeable(algorithm: Algorithm, problem: Problem, learned: Learned, episode: Episode) -> None:
    """Raise `ConfigError` where labels go beyond the outputs, or a loss of a person's own does not depend on them."""
    support, query = episode
    if not len(query.y):
        return
    batch = stack_episodes([episode])
    phase = Phase(training=False, inner_steps=0, way=problem.way_of(batch))
    noise = algorithm.noise(problem, [TaskKey(0, "test", 0, 0)], batch, phase)
    with torch.no_grad(), problem.undisturbed():
        one = {name: value[0] for name, value in noise.items()}
        adaptation = algorithm.adapt(problem, learned, support, noise=one, phase=phase)
        outputs = adaptation.predictors[-1](query.x)
    for name, metric in problem.own_metrics.items():
        _require_number(f"metrics: {name}", metric(outputs, query.y))
    if problem.own_loss is not None:
        with torch.enable_grad():
            loss = _require_number("the loss", problem.loss(outputs.detach().requires_grad_(), query.y))
        if not loss.requires_grad:
            raise ConfigError(
                "the loss does not depend on the outputs as far as derivatives see: look for detach(), .item(), argmax "
                "or numpy in it"
            )
    is_labelled = problem.goal == "classification" and problem.own_loss is None and outputs.dim() > 1
    if is_labelled and int(query.y.max()) >= outputs.shape[1]:
        raise ConfigError(
            f"the model gives {outputs.shape[1]} outputs, and labels go up to {int(query.y.max())}: it needs more"
        )


def _require_number(what: str, value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.dim():
        found = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ConfigError(
            f"{what} gives {found}: one number is needed, a tensor without dimensions, such as of .mean()"
        )
    return value


def _require_own_rows(problem: Problem, learned: Learned, x: Inputs) -> None:
    """Under the policy `support`, what comes of support rows must not depend on the queries beside them."""
    with torch.no_grad():
        moment = problem.surroundings.now(learned.params)
        once = problem.rows_of_support(learned, x, x)
        put_back(moment)
        again = problem.rows_of_support(learned, x, each_input(_other_examples, x))
        put_back(moment)
    if not torch.allclose(once, again, rtol=1e-3, atol=1e-4 * float(once.abs().max())):
        raise ConfigError(
            "batch_norm support needs the examples of a batch to stay its first rows, and this model mixes them "
            "with others (a transposed batch, or a norm over time): use --batch_norm transductive"
        )


def _other_examples(values: Tensor) -> Tensor:
    """In another order, and larger where they are no ids."""
    return values.flip(0) * 3 if values.is_floating_point() else values.flip(0)


def few_of(tasks: TaskSet, key: TaskKey) -> Episode:
    """A small episode of `tasks`, of one size for all keys of a split: see `few_of_each_class`; of a batch of one
    training problem, where classes come as they are drawn, its first examples."""
    episode = tasks.episode(key)
    return Episode(*map(_first, episode)) if tasks.one_problem else few_of_each_class(episode)


def few_of_each_class(episode: Episode) -> Episode:
    """The first `PER_CLASS` examples of each class on both sides, or as many examples in all where y holds values."""
    return Episode(*map(_few, episode))


def _first(side: Examples) -> Examples:
    return rows_of(side, torch.arange(min(len(side.y), FIRST)))


def _few(side: Examples) -> Examples:
    if side.y.dim() != 1 or side.y.is_floating_point():
        kept = torch.arange(min(len(side.y), 2 * PER_CLASS))
    else:
        labels = sorted(set(side.y.tolist()))
        places = [(side.y == label).nonzero()[:PER_CLASS, 0] for label in labels]
        kept = torch.cat(places).sort().values if places else torch.arange(0)
    return rows_of(side, kept)
