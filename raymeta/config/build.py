"""The composition root: from a configuration to the objects that train. Nothing below knows the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from raymeta.algorithms.problem import Learned, Problem
from raymeta.config.schema import RunConfig
from raymeta.config.variants import name_of
from raymeta.engine.books import RunState
from raymeta.engine.chunks import Chunks
from raymeta.engine.executors.base import Executor, Notify, silent
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.executors.placement import PoolOptions
from raymeta.engine.executors.ray_actors import RayExecutor
from raymeta.engine.numerics import Numerics
from raymeta.engine.outer import OuterOptimizer
from raymeta.engine.schedule import Schedule
from raymeta.engine.vectorize import Choice, choose_vectorize
from raymeta.engine.worker import Blueprint
from raymeta.errors import ConfigError
from raymeta.keys import Split
from raymeta.models.norm import convert
from raymeta.tasks.border import require_declared, require_sound
from raymeta.tree import Layout


@dataclass(frozen=True)
class Built:
    """What a configuration describes: how workers are made, and where learning starts."""

    blueprint: Blueprint
    initial: Learned
    batch_norm: str  # the policy in force; `none` without batch norm
    vectorize: Choice


def splits_in_use(config: RunConfig) -> tuple[Split, ...]:
    """The splits that a run draws episodes of."""
    return ("train", "val", "test") if config.validate_every else ("train", "test")


def build(config: RunConfig, splits: Sequence[Split] | None = None) -> Built:
    """Check the data and build model, algorithm and initial parameters, all from `config.seed`.

    Data and first episodes are checked of `splits`, by default of those that a run of `config` uses. Raises `DataError`
    and `ConfigError` before anything is started.
    """
    splits = splits_in_use(config) if splits is None else splits
    config.tasks.require(splits)
    require_declared(config.tasks, dict.fromkeys(("train", "test", *splits)))
    if config.algorithm.uses_queries and config.tasks.size("train").query_shot == 0:
        raise ConfigError(
            f"{name_of(config.algorithm)} learns from query examples, but tasks.train_query_shot is 0: raise it"
        )
    require_sound(
        config.tasks,
        splits,
        seed=config.seed,
        num_episodes=min(config.shard_size, config.meta_batch_size),
        class_ids=config.algorithm.uses_class_ids,
        queries=config.algorithm.uses_queries,
        places="regression" in config.algorithm.goals,  # methods of any loss take labels of any shape
    )
    num_outputs = config.algorithm.num_outputs(config.tasks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = convert(config.model.build(config.tasks.input_shape, num_outputs))
    problem = Problem(model, goal=config.tasks.goal, batch_norm=config.batch_norm)
    params = problem.initial_params()
    if not params:
        raise ConfigError("the model has no learnable parameters")
    if len(dtypes := {p.dtype for p in params.values()}) > 1:
        raise ConfigError(f"the model's parameters have several types ({', '.join(map(str, dtypes))}): use one")
    initial = config.algorithm.init(problem, params, torch.Generator().manual_seed(config.seed))
    choice = _vectorize(config, model)
    blueprint = Blueprint(
        tasks=config.tasks,
        algorithm=config.algorithm,
        model=model,
        layout=Layout.of(initial.params),
        state_layout=Layout.of(initial.state),
        batch_norm=config.batch_norm,
        vectorize=choice.vectorize,
        checkpoint_inner_steps=config.checkpoint_inner_steps,
        compiled=config.compile,
        numerics=Numerics(
            threads=config.threads_per_worker, deterministic=config.deterministic, precision=config.precision
        ),
        device=config.device,
    )
    return Built(blueprint, initial, problem.policy_name(), choice)


def _vectorize(config: RunConfig, model: nn.Module) -> Choice:
    if config.vectorize != "auto":
        return Choice(config.vectorize, "as configured")
    size = config.tasks.size("train")
    on_gpu = config.device == "cuda" or (
        config.device == "auto" and (bool(config.gpus_per_worker) or torch.cuda.is_available())
    )
    num_examples = size.way * (size.shot + size.query_shot)
    device: Literal["cpu", "cuda"] = "cuda" if on_gpu else "cpu"
    return choose_vectorize(model, config.tasks.input_shape, num_examples, device, compiled=config.compile)


def initial_state(config: RunConfig, built: Built) -> RunState:
    """A run before its first step."""
    return RunState(OuterOptimizer(built.initial, config.outer), first_chunks(config))


def first_chunks(config: RunConfig) -> Chunks:
    """Tasks computed at once while memory suffices: a whole shard, unless the configuration says less."""
    return Chunks(min(config.chunk_size or config.shard_size, config.shard_size))


def schedule_of(config: RunConfig) -> Schedule:
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


def open_executor(config: RunConfig, blueprint: Blueprint, notify: Notify = silent) -> Executor:
    """The executor that `workers` asks for: this process, or Ray actors."""
    if config.workers == 0:
        return LocalExecutor(blueprint, notify)
    return RayExecutor(blueprint, pool_options(config), notify)


def pool_options(config: RunConfig) -> PoolOptions:
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
