"""The sums of a shard as one function of tensors, as it is or compiled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.engine.worker.compiled import Call, compiled
from raymeta.engine.worker.memory_errors import is_memory_error
from raymeta.engine.worker.randomness import are_other, random_states
from raymeta.errors import ConfigError
from raymeta.tasks.episodes import Episode, Examples, Noise, in_chunks
from raymeta.tree import Layout, Params


class ShardSums(NamedTuple):
    """Sums over tasks in float64, in one vector [P + S + M] so that they leave a device at once: of the meta-gradient,
    the state, and the metrics, whose names are `metrics`."""

    vector: Tensor
    metrics: tuple[str, ...]


class _Kind(NamedTuple):
    """What is known of compiled calls of one kind: how to call, the names of the metrics, and whether torch's random
    numbers are drawn."""

    call: Call
    metrics: tuple[str, ...]
    draws: bool


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
        self._compiles = compiled
        self._known: dict[object, _Kind] = {}
        self._last_learned: tuple[Learned, list[Tensor], int] | None = None
        self._numbers: dict[object, int] = {}
        self.compile_s = 0.0
        """seconds that compiling took so far, with the first call of each"""

    def __call__(
        self,
        learned: Learned,
        episodes: Episode,
        noise: Noise,
        phase: Phase,
        *,
        chunk_size: int | None = None,
        draws: Callable[[], None] = lambda: None,
    ) -> ShardSums:
        """`chunk_size` tasks are computed at once, all unless given; their sums are added in order. `draws` is called
        before anything that may draw torch's random numbers."""
        if self._compiles and self._problem.vectorize == "loop":
            chunk_size = 1
        if chunk_size is None or chunk_size >= episodes.support.x.shape[0]:
            return self._of_chunk(learned, episodes, noise, phase, draws)
        chunks = in_chunks(episodes, noise, chunk_size)
        parts = (self._of_chunk(learned, part, own, phase, draws) for part, own in chunks)
        vector, metrics = next(parts)
        for part in parts:
            vector = vector + part.vector
        return ShardSums(vector, metrics)

    def _of_chunk(
        self, learned: Learned, episodes: Episode, noise: Noise, phase: Phase, draws: Callable[[], None]
    ) -> ShardSums:
        if not self._compiles:
            draws()
            return self._sums(learned.params, learned.state, episodes, noise, phase)
        own, number = self._numbered(learned)
        given = [*episodes.support, *episodes.query, *noise.values()]
        tensors = own + [value for value in given if value is not None]
        modes = self._problem.model.training, torch.is_autocast_enabled(own[0].device.type), torch.is_grad_enabled()
        kind = number, modes, phase.training, phase.inner_steps, phase.way, *noise, *map(_described, given)
        # A step that is a number would be part of the graph, which would be compiled for every step.
        timeless = phase._replace(step=cast(Any, None))
        known = self._known.get(kind)
        if known is not None:
            if known.draws:
                draws()
            return ShardSums(known.call(tensors, *learned, episodes, noise, timeless), known.metrics)
        draws()
        # As it is first: its errors are clearer, and it fills caches that a compiler cannot fill. What it draws at
        # random, such as dropout's masks, is drawn again by the graph.
        before = random_states(own[0].device)
        with torch.random.fork_rng([own[0].device] if own[0].is_cuda else []):
            metrics = self._sums(learned.params, learned.state, episodes, noise, phase).metrics
            drawn = are_other(before, random_states(own[0].device))
        began = time.perf_counter()
        try:
            vector, call = compiled(self._vector, tensors, *learned, episodes, noise, timeless)
        except Exception as error:
            if is_memory_error(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"this model or method cannot be compiled ({reason}): leave compile out, or set it to false"
            ) from error
        self.compile_s += time.perf_counter() - began
        drawn = drawn or are_other(before, random_states(own[0].device))  # at this step, or by the graph at any
        self._known[kind] = _Kind(call, metrics, drawn)
        return ShardSums(vector, metrics)

    def _numbered(self, learned: Learned) -> tuple[list[Tensor], int]:
        """The tensors of `learned` and of the model itself, and a number for all that a graph depends on of them."""
        if self._last_learned is None or self._last_learned[0] is not learned:
            model = self._problem.model
            tensors = [*learned.params.values(), *learned.state.values()]
            tensors += [*model.buffers(), *(p for p in model.parameters() if not p.requires_grad)]
            described = tensors[0].device, *map(_described, tensors)
            self._last_learned = learned, tensors, self._numbers.setdefault(described, len(self._numbers))
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
