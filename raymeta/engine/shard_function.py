"""The sums of a shard as one function of tensors, as it is or compiled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import reduce
from types import FunctionType, MethodType
from typing import Any, cast

import torch
from torch import Tensor

from raymeta.algorithms.base import Algorithm, Noise
from raymeta.algorithms.problem import Learned, Phase, Problem
from raymeta.engine.chunks import in_chunks, is_memory_error
from raymeta.errors import ConfigError
from raymeta.tasks.base import Episode, Examples
from raymeta.tree import Layout, Params

Sums = tuple[Tensor, dict[str, Tensor]]


class ShardFunction:
    """Learned parameters and a batch of episodes to [P + S] sums of meta-gradient and state, and sums of metrics.

    Compiled, the whole function is one graph: gradients inside, `vmap` outside, so it is exact at any order. With
    `vmap` it is compiled again for another number of tasks; with `loop` the graph is that of one task, called for each.
    It knows no outer step: `Phase.step` is None in it.
    """

    def __init__(
        self, algorithm: Algorithm, problem: Problem, layout: Layout, state_layout: Layout, *, compiled: bool
    ) -> None:
        self._algorithm, self._problem = algorithm, problem
        self._layout, self._state_layout = layout, state_layout
        self._compiled: Callable[..., Sums] | None = None
        if compiled:
            self._compiled = torch.compile(_with_own_code(self._sums), fullgraph=True, dynamic=False)
        self._seen: set[object] = set()
        self._last_learned: tuple[Learned, tuple[Any, ...]] | None = None
        self.compile_s = 0.0
        """seconds that compiling took so far, with the first call of each"""

    def __call__(
        self, learned: Learned, episodes: Episode, noise: Noise, phase: Phase, *, chunk_size: int | None = None
    ) -> Sums:
        """Sums in the type of the parameters [P + S], and in float64 by name of the metric.

        `chunk_size` tasks are computed at once, all unless given; their sums are added in float64 and in order.
        """
        if self._compiled is not None and self._problem.vectorize == "loop":
            chunk_size = 1
        vector, metrics = _total(
            self._of_chunk(learned, part, draws, phase) for part, draws in in_chunks(episodes, noise, chunk_size)
        )
        # Summed in float64, sent in the parameters' own type: the leaves of the fold.
        return vector.to(next(iter(learned.params.values())).dtype), metrics

    def _of_chunk(self, learned: Learned, episodes: Episode, noise: Noise, phase: Phase) -> Sums:
        if self._compiled is None:
            return self._sums(learned.params, learned.state, episodes, noise, phase)
        kind = self._kind(learned, episodes, noise, phase)
        if kind in self._seen:
            # The compiler's own checks of its inputs take half as long as a small shard; `kind` holds what they check.
            with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
                return self._compiled(*learned, episodes, noise, _without_step(phase))
        # As it is first: its errors are clearer, and it fills caches that a compiler cannot fill.
        self._sums(learned.params, learned.state, episodes, noise, phase)
        began = time.perf_counter()
        try:
            result = self._compiled(*learned, episodes, noise, _without_step(phase))
        except Exception as error:
            if is_memory_error(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"this model or method cannot be compiled ({reason}): leave compile out, or set it to false"
            ) from error
        self._seen.add(kind)
        self.compile_s += time.perf_counter() - began
        return result

    def _kind(self, learned: Learned, episodes: Episode, noise: Noise, phase: Phase) -> object:
        """All that a graph is compiled for, besides what never changes in this object."""
        if self._last_learned is None or self._last_learned[0] is not learned:
            tensors = [*learned.params.values(), *learned.state.values()]
            self._last_learned = learned, (tensors[0].device.type, *map(_described, tensors))
        own = self._last_learned[1]
        modes = self._problem.model.training, torch.is_autocast_enabled(own[0]), torch.is_grad_enabled()
        given = [value for side in episodes for value in side if value is not None]
        return modes, phase._replace(step=0), own, tuple(map(_described, [*noise.values(), *given]))

    def _sums(self, params: Params, state: Params, episodes: Episode, noise: Noise, phase: Phase) -> Sums:
        # Dynamo wants plain tuples taken apart here.
        support, query = Examples(*episodes.support), Examples(*episodes.query)
        sums = self._algorithm.contribution(
            self._problem, Learned(params, state), Episode(support, query), noise=noise, phase=phase
        )
        parts = [self._layout.flatten(sums.gradient), self._state_layout.flatten(sums.state)]
        return torch.cat(parts), sums.metrics


def _described(tensor: Tensor) -> object:
    return tensor.shape, tensor.stride(), tensor.dtype


def _total(sums: Iterable[Sums]) -> Sums:
    def add(one: Sums, other: Sums) -> Sums:
        return one[0] + other[0], {name: value + other[1][name] for name, value in one[1].items()}

    return reduce(add, sums)


def _with_own_code(method: Callable[..., Sums]) -> Callable[..., Sums]:
    """The method with a code object of its own, by which a compiler tells whose graphs are whose."""
    function: Any = method.__func__  # type: ignore[attr-defined]
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    return MethodType(own, method.__self__)  # type: ignore[attr-defined]


def _without_step(phase: Phase) -> Phase:
    """A step that is a number would be part of the graph, which would be compiled for every step."""
    return phase._replace(step=cast(Any, None))
