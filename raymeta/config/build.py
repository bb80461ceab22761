"""The composition root: from a configuration to the objects that train. Nothing below knows the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from raymeta.adaptation.problem import Learned, Problem, Vectorize
from raymeta.algorithms.anil import ANIL
from raymeta.algorithms.base import TrainedModel
from raymeta.algorithms.maml import MAML
from raymeta.algorithms.matching import MatchingNet
from raymeta.algorithms.meta_sgd import MetaSGD
from raymeta.algorithms.protonet import ProtoNet
from raymeta.algorithms.r2d2 import R2D2
from raymeta.algorithms.reptile import Reptile
from raymeta.autodiff.failures import LOOP
from raymeta.config.build_mixing import build_mixing
from raymeta.config.build_problem import build_problem, example_inputs, is_known
from raymeta.config.schema import RunConfig
from raymeta.config.variants import name_of
from raymeta.engine.driver.memory import Chunks
from raymeta.engine.driver.outer import OuterOptimizer, OuterOptions
from raymeta.engine.driver.rehearsal import rehearse
from raymeta.engine.driver.schedule import Schedule
from raymeta.engine.driver.state import RunState
from raymeta.engine.executors.base import Executor, Tell, silent
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.executors.placement import PoolOptions
from raymeta.engine.executors.ray_actors import RayExecutor
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.engine.worker.compile_rule import Compiles, choose_compile
from raymeta.engine.worker.numerics import Numerics
from raymeta.engine.worker.vectorize import Choice, any_convolution, choose_vectorize
from raymeta.errors import ConfigError, RaymetaError
from raymeta.keys import Split
from raymeta.models.conv4 import Conv4
from raymeta.models.mlp import MLP
from raymeta.tasks.base import TaskSet
from raymeta.tasks.border import require_declared, require_sound
from raymeta.tasks.mixing import Mixing
from raymeta.tree import Layout, Params, outer_type


@dataclass(frozen=True)
class Built:
    """What a configuration describes: how workers are made, where learning starts, and what is done when."""

    blueprint: Blueprint
    initial: Learned
    batch_norm: str  # the policy in force; `none` without batch norm
    vectorize: Choice
    compiled: Compiles
    fixed: Params  # the model's tensors that are not learned, as it holds them
    schedule: Schedule
    outer: OuterOptions
    chunk_size: int  # tasks computed at once while memory suffices
    pool: PoolOptions | None  # where workers are; None: in this process

    def state(self) -> RunState:
        """A run before its first step."""
        algorithm = self.blueprint.algorithm
        outer = OuterOptimizer(self.initial, self.outer, algorithm.outer_of, apart=algorithm.has_own_step)
        return RunState(outer, self.chunks(), fixed=self.fixed)

    def chunks(self) -> Chunks:
        """Tasks computed at once, before any memory ran short."""
        return Chunks(self.chunk_size)

    def executor(self, tell: Tell = silent) -> Executor:
        """The workers: this process, or Ray actors that are started now. `tell` hears of what happens to them."""
        if self.pool is None:
            return LocalExecutor(self.blueprint, tell)
        return RayExecutor(self.blueprint, self.pool, tell)


def splits_in_use(config: RunConfig) -> tuple[Split, ...]:
    """The splits that a run draws episodes of."""
    return ("train", "val", "test") if config.validate_every else ("train", "test")


def build(
    config: RunConfig, splits: Sequence[Split] | None = None, *, say: Callable[[str], None] = lambda text: None
) -> Built:
    """Check the data and build model, algorithm and initial parameters, all from `config.seed`.

    Data and first episodes are checked of `splits`, by default of those that a run of `config` uses. Small tasks of
    each are computed where anything but raymeta's own networks and methods takes part. `say` hears what takes long.

    Raises `DataError`, `ConfigError` and `NotTwiceDifferentiable` before anything is started.
    """
    splits = splits_in_use(config) if splits is None else splits
    _check_data(config, splits)
    problem = build_problem(config)
    initial = config.algorithm.init(problem, problem.initial_params(), torch.Generator().manual_seed(config.seed))

    def rehearsal(vectorize: Vectorize) -> None:
        problem.vectorize = vectorize
        if is_known(config):
            return
        rehearse(config.algorithm, problem, initial, config.tasks, seed=config.seed, splits=splits)

    compiled = _compiles(config, say)
    choice = _vectorize(config, problem.model, rehearsal, compiled=compiled.compile)
    owned = Learned(*({n: v.to(outer_type(v.dtype)) for n, v in part.items()} for part in initial))
    mixing = build_mixing(config, problem.model)
    blueprint = _blueprint(config, problem, initial, mixing, vectorize=choice.vectorize, compiled=compiled.compile)
    return Built(
        blueprint,
        owned,
        problem.policy_name(),
        choice,
        compiled,
        problem.fixed_tensors(),
        _schedule(config),
        config.outer,
        min(config.chunk_size or config.shard_size, config.shard_size),
        _pool(config) if config.workers else None,
    )


def _check_data(config: RunConfig, splits: Sequence[Split]) -> None:
    config.tasks.require(splits)
    require_declared(config.tasks, dict.fromkeys(("train", "test", *splits)))
    if config.algorithm.uses_queries and config.tasks.size("train").query_shot == 0:
        raise ConfigError(
            f"{name_of(config.algorithm)} learns from query examples, but tasks.train_query_shot is 0: raise it"
        )
    _require_fixed_classes(config)
    require_sound(
        config.tasks,
        splits,
        seed=config.seed,
        num_episodes=min(config.shard_size, config.meta_batch_size),
        class_ids=config.algorithm.uses_class_ids,
        queries=config.algorithm.uses_queries,
        places="regression" in config.algorithm.goals,  # methods of any loss take labels of any shape
    )


def _require_fixed_classes(config: RunConfig) -> None:
    """Raise `ConfigError` where one classifier is to be trained and a label means another class in every task."""
    tasks = config.tasks
    sampled = tasks.goal == "classification" and tasks.num_classes("train") > tasks.size("train").way
    if sampled and isinstance(config.algorithm, TrainedModel):
        raise ConfigError(
            f"{name_of(config.algorithm)} trains one classifier, and tasks of {name_of(tasks)} draw their classes, so "
            "that a label means another class in each: use --tasks classification"
        )


def _blueprint(
    config: RunConfig,
    problem: Problem,
    initial: Learned,
    mixing: Mixing | None,
    *,
    vectorize: Vectorize,
    compiled: bool,
) -> Blueprint:
    return Blueprint(
        tasks=config.tasks,
        algorithm=config.algorithm,
        model=problem.model,
        layout=Layout.of(initial.params),
        state_layout=Layout.of(initial.state),
        momenta=problem.momenta(),
        habits=problem.habits,
        loss=problem.own_loss,
        metrics=problem.own_metrics,
        wide_head=problem.wide_head,
        mixing=mixing,
        batch_norm=config.batch_norm,
        vectorize=vectorize,
        checkpoint_inner_steps=config.checkpoint_inner_steps,
        compiled=compiled,
        numerics=Numerics(
            threads=config.threads_per_worker, deterministic=config.deterministic, precision=config.precision
        ),
        device=config.device,
    )


def _compiles(config: RunConfig, say: Callable[[str], None]) -> Compiles:
    if config.compile != "auto":
        return Compiles(config.compile, "as configured")
    algorithm = config.algorithm
    steps = (getattr(algorithm, name, None) or 0 for name in ("inner_steps", "test_inner_steps"))
    return choose_compile(
        num_tasks=config.steps * config.meta_batch_size,
        limits_s={"time_limit": config.time_limit, "shard_timeout": config.shard_timeout},
        inner_steps=max(steps),
        measured=_is_measured(config),
        recomputed=config.checkpoint_inner_steps,
        device=None if _joins_unknown_devices(config) else _device(config),
        say=say,
    )


_MEASURED = (MAML, MetaSGD, ANIL, Reptile, ProtoNet, MatchingNet, R2D2)
"""Methods that are measured compiled, see docs/speed.md."""


def _is_measured(config: RunConfig) -> bool:
    """Whether the rule for compiling was measured with what this configuration computes."""
    return (
        type(config.algorithm) in _MEASURED
        and isinstance(config.model, MLP | Conv4)
        and is_known(config)
        and config.mixing is None
        and config.precision == "float32"
        and type(config.tasks).size_at is TaskSet.size_at  # each size is a graph of its own
    )


def _joins_unknown_devices(config: RunConfig) -> bool:
    """Whether workers of another cluster may have GPUs or not, which nobody here knows."""
    asked = config.gpus_per_worker is not None or config.device != "auto"
    return bool(config.workers) and config.address is not None and not asked


def _device(config: RunConfig) -> Literal["cpu", "cuda"]:
    """Where a worker computes, as far as that is known before there are workers."""
    finds_gpu = bool(config.gpus_per_worker) or torch.cuda.is_available()
    return "cuda" if config.device == "cuda" or (config.device == "auto" and finds_gpu) else "cpu"


def _vectorize(
    config: RunConfig, model: nn.Module, rehearsal: Callable[[Vectorize], None], *, compiled: bool
) -> Choice:
    if config.vectorize != "auto":
        rehearsal(config.vectorize)
        return Choice(config.vectorize, "as configured")
    size = config.tasks.size("train")
    num_examples = size.way * (size.shot + size.query_shot)
    example = example_inputs(config, model) if any_convolution(model) else torch.zeros(0)
    choice = choose_vectorize(model, example, num_examples, _device(config), compiled=compiled)
    try:
        rehearsal(choice.vectorize)
    except RaymetaError as error:
        if choice.vectorize == "loop":
            raise
        rehearsal("loop")
        reason = str(error).partition(f": {LOOP}")[0]
        choice = Choice("loop", f"side by side is not possible: {reason}")
    return choice


def _schedule(config: RunConfig) -> Schedule:
    """The part of the configuration that the loop needs."""
    return Schedule(
        seed=config.seed,
        steps=config.steps,
        meta_batch_size=config.meta_batch_size,
        shard_size=config.shard_size,
        validate_every=config.validate_every,
        validation_episodes=config.validation_episodes,
        checkpoint_every=config.checkpoint_every,
        time_limit_s=config.time_limit,
        overlap_validation=config.overlap_validation,
    )


def _pool(config: RunConfig) -> PoolOptions:
    """The part of the configuration that says where workers are."""
    return PoolOptions(
        workers=config.workers,
        min_workers=config.min_workers,
        max_workers=config.max_workers,
        address=config.address,
        autoscaling=config.autoscaling,
        cpus_per_worker=config.threads_per_worker if config.cpus_per_worker is None else config.cpus_per_worker,
        gpus_per_worker=config.gpus_per_worker,
        accelerator_type=config.accelerator_type,
        node_labels=config.node_labels,
        placement=config.placement,
        aggregate=config.aggregate,
        shard_timeout_s=config.shard_timeout,
        worker_wait_s=config.worker_wait,
    )
