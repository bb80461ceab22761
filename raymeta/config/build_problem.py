"""The model of a configuration with its loss, as a problem, and what must be known of a model before it is computed."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
from torch import nn

from raymeta.adaptation.losses import LOSSES, Loss, loss_of, metrics_of
from raymeta.adaptation.problem import Problem
from raymeta.algorithms.base import TrainedModel
from raymeta.autodiff.surroundings import seeded_by
from raymeta.config.schema import RunConfig
from raymeta.config.variants import name_of
from raymeta.engine.driver.rehearsal import few_of
from raymeta.errors import ConfigError
from raymeta.keys import SPLITS, TaskKey
from raymeta.models.backbones import Backbone
from raymeta.models.custom import Custom
from raymeta.models.habits import ONLY_COMPUTES, Habits, habits_of
from raymeta.models.instance import Instance
from raymeta.models.layers.convert import convert
from raymeta.models.shapes import type_of
from raymeta.tasks.episodes import in_type
from raymeta.tasks.inputs import Inputs


def build_problem(config: RunConfig) -> Problem:
    """The model, built from `config.seed`, with loss and policies. Raises `ConfigError` where they do not fit."""
    num_outputs = config.algorithm.num_outputs(config.tasks)
    with seeded_by(config.seed):
        model = convert(config.algorithm.network(config.model.fitted(config.tasks), config.tasks))
    _freeze(model, config.freeze)
    _require_one_type(model)
    return Problem(
        model,
        goal=config.tasks.goal,
        loss=_loss(config, num_outputs),
        batch_norm=config.batch_norm,
        habits=_habits(config, model),
        wide_head=num_outputs is not None and config.tasks.size("train").way > config.tasks.size("test").way,
        judged=True,
        metrics=metrics_of(config.metrics),
    )


def _freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Raises `ConfigError` for a pattern that no name matches, or where nothing is left to learn."""
    params = dict(model.named_parameters())
    for pattern in patterns:
        found = fnmatch.filter(params, pattern)
        if not found:
            raise ConfigError(f"freeze {pattern} matches no parameter; the model has {', '.join(sorted(params))}")
        for name in found:
            params[name].requires_grad_(False)
    if patterns and not any(p.requires_grad for p in params.values()):
        raise ConfigError(f"freeze {', '.join(patterns)} leaves nothing to learn")


def is_known(config: RunConfig) -> bool:
    """Whether all that is computed came with raymeta, so that its tests have computed it before."""
    parts = (config.model, config.algorithm)
    is_ours = all(type(part).__module__.startswith("raymeta.") for part in parts)
    return is_ours and not isinstance(config.model, _OPEN) and config.loss in (None, *LOSSES) and not config.metrics


_OPEN = (Backbone, Custom, Instance)
"""Models that hold layers of other people."""


def example_inputs(config: RunConfig, model: nn.Module) -> Inputs:
    """Some inputs of the first training task [n, *feature], in the type of `model`."""
    episode = few_of(config.tasks, TaskKey(config.seed, "train", 0, 0))
    return in_type(type_of(model), episode).support.x


def _loss(config: RunConfig, num_outputs: int | None) -> Loss | None:
    tasks, weights = config.tasks, config.class_weights
    if weights is not None and isinstance(config.algorithm, TrainedModel) and config.algorithm.one_by_one:
        raise ConfigError(
            f"class_weights weigh the examples of a batch against each other, and {name_of(config.algorithm)} takes "
            "the loss of each by itself: leave class_weights out"
        )
    loss = loss_of(config.loss, tasks.goal, class_weights=weights, label_smoothing=config.label_smoothing)
    outputs = tasks.num_outputs if num_outputs is None else num_outputs
    ways = {tasks.size(split).way for split in SPLITS}
    if weights is not None and (len(weights) != outputs or outputs not in ways):
        raise ConfigError(
            f"class_weights has {len(weights)} entries: one is needed for each of an episode's {max(ways)} classes, "
            "and a method that trains on all classes at once takes none"
        )
    return loss


def _require_one_type(model: nn.Module) -> None:
    dtypes = {p.dtype for p in model.parameters() if p.requires_grad}
    if not dtypes:
        raise ConfigError("the model has no learnable parameters")
    if len(dtypes) > 1:
        raise ConfigError(f"the model's parameters have several types ({', '.join(map(str, dtypes))}): use one")
    for name, buffer in model.named_buffers():
        if buffer.layout != torch.strided:
            raise ConfigError(f"the buffer {name} of the model is {buffer.layout}: keep it dense (to_dense())")
    if next(iter(dtypes)).is_complex:
        raise ConfigError(
            "the model's parameters are complex, which outer optimisers are not made for: keep real ones [..., 2], and "
            "torch.view_as_complex of them in forward"
        )


def _habits(config: RunConfig, model: nn.Module) -> Habits:
    """What a person's own model does by itself; the networks that come with raymeta only compute."""
    head = getattr(config.model, "head", None)
    is_ours = type(config.model).__module__.startswith("raymeta.")
    if is_ours and not isinstance(config.model, Custom | Instance):
        return ONLY_COMPUTES
    x = example_inputs(config, model)
    with seeded_by(config.seed):
        habits = habits_of(model, x, head=head)
    if config.workers:
        from raymeta.engine.executors.ray_actors.sending import require_same_when_sent

        require_same_when_sent(model, x)
    if config.compile is True and (habits.draws or habits.writes):
        what = habits.writes[0] if habits.writes else "Python's or numpy's random numbers"
        verb = "writes" if habits.writes else "draws"
        raise ConfigError(
            f"compile: the model's forward {verb} {what}, which a compiled graph would do once: set it to false"
        )
    return habits
