"""The sums of a shard as one function of tensors, as it is or compiled."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import TASK_GRADIENT, Algorithm
from raymeta.engine.worker.compiled import Call, compiled
from raymeta.engine.worker.memory_errors import is_memory_error
from raymeta.engine.worker.randomness import are_other, random_states
from raymeta.errors import ConfigError
from raymeta.tasks.episodes import Episode, Noise, in_chunks, tensors
from raymeta.tree import Layout, Params


class Outline(NamedTuple):
    """How the vector of a shard is made up: sums, then metrics, then rows."""

    layout: Layout | None  # of the sums; None for those of everything learned
    num_sums: int
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]  # names, shapes of one task's, types


class ShardSums(NamedTuple):
    """What a method gives for the tasks of a shard, in one float64 vector so that it leaves a device at once."""

    vector: Tensor
    outline: Outline

    def added(self, other: ShardSums) -> ShardSums:
        """With `other`, of the tasks after these."""
        end = self.outline.num_sums + len(self.outline.metrics)
        sums = self.vector[:end] + other.vector[:end]
        if not self.outline.rows:
            return ShardSums(sums, self.outline)
        both = [self._columns(), other._columns()]
        rows = [torch.cat([one, two]).reshape(-1) for one, two in zip(*both, strict=True)]
        return ShardSums(torch.cat([sums, *rows]), self.outline)

    def _columns(self) -> list[Tensor]:
        """The rows, each [T, size of one task's]."""
        rows = self.vector[self.outline.num_sums + len(self.outline.metrics) :]
        sizes = [math.prod(shape) for _, shape, _ in self.outline.rows]
        num_tasks = len(rows) // max(1, sum(sizes))
        return [part.view(num_tasks, -1) for part in rows.split_with_sizes([num_tasks * size for size in sizes])]

    def rows(self) -> Params:
        """The rows [T, ...] by name, on the CPU and in the types that the method gave; float64 holds all of them."""
        named = zip(self.outline.rows, self._columns(), strict=True) if self.outline.rows else ()
        return {name: column.view(-1, *shape).to(dtype) for (name, shape, dtype), column in named}


class _Kind(NamedTuple):
    """What is known of compiled calls of one kind: how to call, what the vector is made of, and whether torch's random
    numbers are drawn."""

    call: Call
    outline: Outline
    draws: bool


class Asked(NamedTuple):
    """A method of the algorithm, what was said about the tasks at hand, and what each draws or was given."""

    function: str
    episodes: Episode
    noise: Noise
    phase: Phase
    rows: Params | None = None

    def tensors(self) -> list[Tensor]:
        return [*tensors(self.episodes), *self.noise.values(), *(self.rows or {}).values()]

    def chunks(self, size: int) -> Iterator[Asked]:
        drawn = self.noise if self.rows is None else self.noise | self.rows
        for episodes, own in in_chunks(self.episodes, drawn, size):
            rows = None if self.rows is None else {name: own.pop(name) for name in self.rows}
            yield self._replace(episodes=episodes, noise=own, rows=rows)


class ShardFunction:
    """What is learned and a batch of episodes to the sums of what a method of the algorithm gives.

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
        asked: Asked,
        *,
        chunk_size: int | None = None,
        draws: Callable[[], None] = lambda: None,
    ) -> ShardSums:
        """`chunk_size` tasks are computed at once, all unless given; their sums are added in order. `draws` is called
        before anything that may draw torch's random numbers."""
        if self._compiles and self._problem.vectorize == "loop":
            chunk_size = 1
        if chunk_size is None or chunk_size >= len(asked.episodes.support.y):
            return self._of_chunk(learned, asked, draws)
        parts = (self._of_chunk(learned, part, draws) for part in asked.chunks(chunk_size))
        return functools.reduce(ShardSums.added, parts)

    def _of_chunk(self, learned: Learned, asked: Asked, draws: Callable[[], None]) -> ShardSums:
        if not self._compiles:
            draws()
            return self._sums(learned, asked)
        own, number = self._numbered(learned)
        given, phase = asked.tensors(), asked.phase
        tensors = own + given
        modes = self._problem.model.training, torch.is_autocast_enabled(own[0].device.type), torch.is_grad_enabled()
        options = asked.function, phase.training, phase.inner_steps, phase.way
        kind = number, modes, options, *asked.noise, *(asked.rows or ()), *map(_described, given), *_repeated(tensors)
        # A step that is a number would be part of the graph, which would be compiled for every step.
        timeless = asked._replace(phase=phase._replace(step=cast(Any, None)))
        known = self._known.get(kind)
        if known is not None:
            if known.draws:
                draws()
            return ShardSums(known.call(tensors), known.outline)
        draws()
        # As it is first: its errors are clearer, and what the code keeps for later calls is made of real tensors then.
        # What it draws at random, such as dropout's masks, is drawn again by the graph.
        before = random_states(own[0].device)
        with torch.random.fork_rng([own[0].device] if own[0].is_cuda else []):
            outline = self._sums(learned, asked).outline
            drawn = are_other(before, random_states(own[0].device))
        began = time.perf_counter()
        try:
            about = repr((self._algorithm, self._problem.model, kind[1:]))
            vector, call = compiled(self._vector, tensors, learned, timeless, about=about)
        except Exception as error:
            if is_memory_error(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(f"this model or method cannot be compiled ({reason}): set compile to false") from error
        self.compile_s += time.perf_counter() - began
        drawn = drawn or are_other(before, random_states(own[0].device))  # at this step, or by the graph at any
        self._known[kind] = _Kind(call, outline, drawn)
        return ShardSums(vector, outline)

    def _numbered(self, learned: Learned) -> tuple[list[Tensor], int]:
        """The tensors of `learned` and of the model itself, and a number for all that a graph depends on of them."""
        if self._last_learned is None or self._last_learned[0] is not learned:
            model = self._problem.model
            tensors = [*learned.params.values(), *learned.state.values(), *learned.given.values()]
            tensors += [*model.buffers(), *(p for p in model.parameters() if not p.requires_grad)]
            described = tensors[0].device, *learned.given, *map(_described, tensors)
            self._last_learned = learned, tensors, self._numbers.setdefault(described, len(self._numbers))
        return self._last_learned[1:]

    def _vector(self, learned: Learned, asked: Asked) -> Tensor:
        return self._sums(learned, asked).vector

    def _sums(self, learned: Learned, asked: Asked) -> ShardSums:
        part = self._algorithm.contribution(
            self._problem,
            learned,
            asked.episodes,
            noise=asked.noise,
            phase=asked.phase,
            function=asked.function,
            rows=asked.rows,
        )
        layout = None if asked.function == TASK_GRADIENT else Layout.of(part.sums)
        pieces = [(layout or self._layout).flatten(part.sums)]
        if layout is None and self._state_layout.shapes:
            pieces.append(self._state_layout.flatten(part.sums))
        num_sums = sum(map(len, pieces))
        pieces += [metric.detach().reshape(1) for metric in part.metrics.values()]
        pieces += [row.detach().reshape(-1).double() for row in part.rows.values()]
        rows = tuple((name, tuple(row.shape[1:]), row.dtype) for name, row in part.rows.items())
        return ShardSums(torch.cat(pieces), Outline(layout, num_sums, tuple(part.metrics), rows))


def _repeated(tensors: Sequence[Tensor]) -> Sequence[int]:
    """Which of `tensors` are the same, by the last place of each; empty where none are."""
    places = {id(tensor): place for place, tensor in enumerate(tensors)}
    return () if len(places) == len(tensors) else [places[id(tensor)] for tensor in tensors]


def _described(tensor: Tensor) -> object:
    return tensor.shape, tensor.stride(), tensor.dtype
