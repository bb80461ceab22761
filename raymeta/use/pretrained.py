"""A meta-trained model to be adapted: from a run, one of its checkpoints, or an exported folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from raymeta.adaptation.outcome import Predictor
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm, DescentAlgorithm, TrainedModel
from raymeta.autodiff.failures import exact_attention
from raymeta.config.build import Built, build
from raymeta.config.schema import RunConfig
from raymeta.config.variants import name_of
from raymeta.errors import ConfigError, DataError
from raymeta.keys import TaskKey
from raymeta.models.shapes import type_of
from raymeta.tasks.episodes import Episode, Examples, in_type, stack_episodes
from raymeta.tasks.inputs import Inputs, each_input, shape_of, sizes_text
from raymeta.tasks.reader import Reader
from raymeta.tasks.recorded import Recorded
from raymeta.tree import Params
from raymeta.use.seen import Seen

AT_ONCE = 256
"""Queries that are computed together."""


@dataclass(frozen=True)
class Pretrained:
    """A model with everything that adapting it needs; nothing of it is ever changed.

    Single inputs are normalised by the support set, whatever the batch-norm policy of training was: `batch_norm` says
    which that was. A model that adapts to nothing keeps that policy.
    """

    name: str
    config: RunConfig = field(repr=False)
    learned: Learned = field(repr=False)
    fixed: Params = field(repr=False)
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """where it comes from and how it scored, for its card"""
    seen: Seen | None = field(default=None, repr=False)
    """what its training data looked like, where that is known"""

    def licensed(self, license: str | None) -> Pretrained:
        """With a licence for its card; as it is without one."""
        return self if license is None else dataclasses.replace(self, about={**self.about, "license": license})

    @property
    def tasks(self) -> Recorded:
        tasks = self.config.tasks
        assert isinstance(tasks, Recorded)
        return tasks

    @property
    def algorithm(self) -> Algorithm:
        return self.config.algorithm

    @cached_property
    def built(self) -> Built:
        built = build(self.config, ())
        for name, value in self.fixed.items():
            built.fixed[name].copy_(value)
        return built

    @property
    def batch_norm(self) -> str:
        """The policy of training; `none` without batch norm."""
        return self.built.batch_norm

    @cached_property
    def problem(self) -> Problem:
        """The model, its queries normalised by the support set; by training's policy where it adapts to nothing."""
        adapts = not isinstance(self.algorithm, TrainedModel)
        own = {"wide_head": True, "vectorize": "loop"} | ({"batch_norm": "support"} if adapts else {})
        problem: Problem = dataclasses.replace(self.built.blueprint, **own).problem()  # type: ignore[arg-type]
        problem.set_training(False)
        return problem

    @cached_property
    def dtype(self) -> torch.dtype:
        return type_of(self.problem.model)

    def inputs(self, x: Any) -> Inputs:
        """Somebody's inputs [n, ...] as tensors of the model's type; numpy arrays are taken too.

        Raises `ConfigError` where shape or type are not those of the training data.
        """
        own = {name: torch.as_tensor(v) for name, v in x.items()} if isinstance(x, dict) else torch.as_tensor(x)
        if (found := shape_of(own)) != self.tasks.input_shape:
            raise ConfigError(
                f"inputs are {sizes_text(found)}, and {self.name} takes {sizes_text(self.tasks.input_shape)}: give "
                "examples [n, ...] of that shape"
            )
        if isinstance(own, Tensor) and not own.is_floating_point() and self.tasks.types.get("x", "float") == "float":
            raise ConfigError(
                f"inputs are {str(own.dtype).removeprefix('torch.')}, and {self.name} was trained on floats: give them "
                "in the form and range of the training data (images: x.float() / 255)"
            )
        return each_input(self._typed, own)

    def module(self) -> nn.Module:
        """The network alone, with what was learned in it, before any adapting."""
        return self.built.blueprint.problem().exported(self.learned)

    @cached_property
    def reader(self) -> Reader:
        """Raises `DataError` where it is not known how examples become inputs."""
        reader = self.tasks.reader()
        if reader is None:
            raise DataError(
                f"{self.name}: its task set does not say how an example of yours becomes an input: give tensors to "
                "raymeta.adapt_to(model, x, labels) in Python, or write `reader` of the task set"
            )
        return reader

    def fitted_to(self, items: Sequence[Any]) -> Pretrained:
        """With the reader for these support examples; as it is where that does not depend on them."""
        reader = self.reader.fitted(items)
        if reader is self.reader:
            return self
        tasks = dataclasses.replace(self.tasks, preprocessing=reader.to_json())
        return dataclasses.replace(self, config=self.config.model_copy(update={"tasks": tasks}))

    def predictor(self, support: Examples, way: int | None = None) -> Predictor:
        """Adapt to `support`, whose labels are 0 .. way - 1: inputs [n, ...] to outputs [n, way].

        `way` is that of the test tasks unless it is given. It is left out for regression, where targets and outputs are
        [n, d] and `class_id` is 0.

        Raises `ConfigError` where the method cannot take so many classes.
        """
        way = self.tasks.size("test").way if way is None else way
        support = in_type(self.dtype, Episode(support, support)).support
        learned = self.learned.in_type(self.dtype)
        phase = Phase(training=False, way=way)
        with torch.no_grad(), exact_attention(), self.problem.undisturbed():
            learned = with_enough_outputs(self, learned, support, way)
            batch = stack_episodes([Episode(support, support)])
            noise = self.algorithm.noise(self.problem, [TaskKey(0, "test", 0, 0)], batch, phase)
            own = {name: value[0] for name, value in noise.items()}
            adaptation = self.algorithm.adapt(self.problem, learned, support, noise=own, phase=phase)
        return adaptation.predictors[-1]

    def features(self, x: Any) -> Tensor:
        """What the network makes of inputs before any adapting [n, d]: the inputs of its head, or its outputs where the
        method has no head of its own. Batch norm uses the inputs that are given."""
        phase = Phase(training=False)
        learned = self.learned.in_type(self.dtype)
        x = in_type(self.dtype, Episode(*[Examples(x, torch.zeros(0))] * 2)).support.x
        with torch.no_grad(), exact_attention(), self.problem.undisturbed():
            if self.algorithm.num_outputs(self.tasks) is None:
                return self.problem.forward(learned, x, phase).flatten(1)
            return self.problem.features(learned, x, phase).flatten(1)

    def _typed(self, value: Tensor) -> Tensor:
        return value.to(self.dtype) if value.is_floating_point() else value


def with_enough_outputs(model: Pretrained, learned: Learned, support: Examples, way: int) -> Learned:
    """What is learned, its head made anew from class means where there are more classes than it has outputs.

    Weights 2c and biases −‖c‖² of the class means c are the classifier of the nearest one (Snell et al. 2017, section
    2.4; as a start of adapting: Triantafillou et al., ICLR 2020, Proto-MAML).

    Raises `ConfigError` for a method that ties more to the number of classes.
    """
    outputs = model.algorithm.num_outputs(model.tasks)
    if outputs is None or way <= outputs or model.algorithm.uses_class_ids:
        return learned
    name, problem = name_of(model.algorithm), model.problem
    head = {n for n in problem.param_names if n.startswith(problem.head_prefix)}
    others = [n for n, v in learned.params.items() if n not in problem.param_names and outputs in v.shape]
    if not isinstance(model.algorithm, DescentAlgorithm) or others or not head:
        raise ConfigError(
            f"{name} was trained with {outputs} classes and cannot take {way}: "
            + (f"it also learned {others[0]} for each of them. " if others else "what it learned is for that many. ")
            + "Train with tasks.way as large as you need, or with a method that takes any number (protonet, r2d2, anil)"
        )
    z = problem.features(learned, support.x, Phase(training=False, way=way)).flatten(1)
    means = torch.stack([z[support.y == label].mean(0) for label in range(way)])
    values = {"weight": 2 * means, "bias": -means.square().sum(1)}
    return learned._replace(params=learned.params | {n: values[n.removeprefix(problem.head_prefix)] for n in head})
