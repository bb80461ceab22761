"""The sums of a shard as one function of tensors, as it is or compiled."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from raymeta.algorithms.base import Algorithm, Noise
from raymeta.algorithms.problem import Learned, Phase, Problem
from raymeta.engine.chunks import in_chunks, is_memory_error
from raymeta.engine.compiled import Compiled
from raymeta.errors import ConfigError
from raymeta.tasks.base import Episode, Examples
from raymeta.tree import Layout, Params


class ShardSums(NamedTuple):
    """Sums over tasks in float64, in one vector [P + S + M] so that they leave a device at once: of the meta-gradient,
    the state, and the metrics, whose names are `metrics`."""

    vector: Tensor
    metrics: tuple[str, ...]


class ShardFunction:
    """Learned parameters and a batch of episodes to the sums of meta-gradient, state and metrics.

    Compiled, the whole function is one graph: gradients inside, `vmap` outside, so it is exact at any order. With
    `vmap` it is compiled again for another number of tasks; with `loop` the graph is that of one task, called for each.
    It knows no outer step: `Phase.step` is None in it.
    """

    def __init__(
        self, algorithm: Algorithm, problem: Problem, layout: Layout, state_layout: Layout, *, compiled: bool
    ) -> None:
        self._algorithm, self._problem = algorithm, problem
        self._layout, self._state_layout = layout, state_layout
        self._compiled = Compiled(self._vector) if compiled else None
        self._metrics: dict[object, tuple[str, ...]] = {}
        self._last_learned: tuple[Learned, list[Tensor], object] | None = None
        self.compile_s = 0.0
        """seconds that compiling took so far, with the first call of each"""

    def __call__(
        self, learned: Learned, episodes: Episode, noise: Noise, phase: Phase, *, chunk_size: int | None = None
    ) -> ShardSums:
        """`chunk_size` tasks are computed at once, all unless given; their sums are added in order."""
        if self._compiled is not None and self._problem.vectorize == "loop":
            chunk_size = 1
        if chunk_size is None or chunk_size >= episodes.support.x.shape[0]:
            return self._of_chunk(learned, episodes, noise, phase)
        parts = (self._of_chunk(learned, part, draws, phase) for part, draws in in_chunks(episodes, noise, chunk_size))
        vector, metrics = next(parts)
        for part in parts:
            vector = vector + part.vector
        return ShardSums(vector, metrics)

    def _of_chunk(self, learned: Learned, episodes: Episode, noise: Noise, phase: Phase) -> ShardSums:
        if self._compiled is None:
            return self._sums(learned.params, learned.state, episodes, noise, phase)
        own, described = self._described(learned)
        given = [*chain(*episodes), *noise.values()]
        tensors = own + [value for value in given if value is not None]
        modes = self._problem.model.training, torch.is_autocast_enabled(own[0].device.type), torch.is_grad_enabled()
        kind = modes, phase.training, phase.inner_steps, phase.way, described, *noise, *map(_described, given)
        # A step that is a number would be part of the graph, which would be compiled for every step.
        timeless = phase._replace(step=cast(Any, None))
        if self._compiled.knows(kind):
            vector = self._compiled(kind, tensors, *learned, episodes, noise, timeless)
            return ShardSums(vector, self._metrics[kind])
        # As it is first: its errors are clearer, and it fills caches that a compiler cannot fill.
        with _random_state_kept(own[0].device):
            self._metrics[kind] = self._sums(learned.params, learned.state, episodes, noise, phase).metrics
        began = time.perf_counter()
        try:
            vector = self._compiled(kind, tensors, *learned, episodes, noise, timeless)
        except Exception as error:
            if is_memory_error(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"this model or method cannot be compiled ({reason}): leave compile out, or set it to false"
            ) from error
        self.compile_s += time.perf_counter() - began
        return ShardSums(vector, self._metrics[kind])

    def _described(self, learned: Learned) -> tuple[list[Tensor], object]:
        """The tensors of `learned` and of the model itself, and all that a graph depends on of them."""
        if self._last_learned is None or self._last_learned[0] is not learned:
            model = self._problem.model
            tensors = [*learned.params.values(), *learned.state.values()]
            tensors += [*model.buffers(), *(p for p in model.parameters() if not p.requires_grad)]
            self._last_learned = learned, tensors, (tensors[0].device, *map(_described, tensors))
        return self._last_learned[1:]

    def _vector(self, params: Params, state: Params, episodes: Episode, noise: Noise, phase: Phase) -> Tensor:
        return self._sums(params, state, episodes, noise, phase).vector

    def _sums(self, params: Params, state: Params, episodes: Episode, noise: Noise, phase: Phase) -> ShardSums:
        # Dynamo wants plain tuples taken apart here.
        support, query = Examples(*episodes.support), Examples(*episodes.query)
        sums = self._algorithm.contribution(
            self._problem, Learned(params, state), Episode(support, query), noise=noise, phase=phase
        )
        parts = [self._layout.flatten(sums.gradient), *(m.detach().reshape(1) for m in sums.metrics.values())]
        if sums.state:
            parts.insert(1, self._state_layout.flatten(sums.state))
        return ShardSums(torch.cat(parts), tuple(sums.metrics))


def _described(tensor: Tensor | None) -> object:
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype)


def _random_state_kept(device: torch.device) -> AbstractContextManager[None]:
    """Random numbers that are drawn inside, such as dropout's, are drawn again by what follows."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
