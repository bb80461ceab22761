"""The sums of a shard as one function of tensors, as it is or compiled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from raymeta.algorithms.base import Algorithm, Noise
from raymeta.algorithms.problem import Learned, Phase, Problem
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
            self._compiled = torch.compile(self._sums, fullgraph=True, dynamic=False)
        self._seen: set[tuple[int, int]] = set()
        self.compile_s = 0.0
        """seconds that compiling took so far, with the first call of each"""

    def __call__(self, learned: Learned, episodes: Episode, noise: Noise, phase: Phase) -> Sums:
        """Sums in the type of the parameters [P + S], and in float64 by name of the metric."""
        if self._compiled is None:
            return self._sums(learned.params, learned.state, episodes, noise, phase)
        if self._problem.vectorize == "vmap":
            return self._run_compiled(learned, episodes, noise, phase)
        flat, metrics = self._run_compiled(learned, *_task(episodes, noise, 0), phase)
        total = flat.to(torch.float64)
        for t in range(1, len(episodes.support.x)):
            flat, more = self._run_compiled(learned, *_task(episodes, noise, t), phase)
            total += flat
            metrics = {name: value + more[name] for name, value in metrics.items()}
        return total.to(flat.dtype), metrics

    def _run_compiled(self, learned: Learned, episodes: Episode, noise: Noise, phase: Phase) -> Sums:
        assert self._compiled is not None
        shape = len(episodes.support.x), phase.way
        if shape in self._seen:
            return self._compiled(*learned, episodes, noise, _without_step(phase))
        # As it is first: its errors are clearer, and it fills caches that a compiler cannot fill.
        self._sums(learned.params, learned.state, episodes, noise, phase)
        began = time.perf_counter()
        try:
            result = self._compiled(*learned, episodes, noise, _without_step(phase))
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                f"this model or method cannot be compiled ({reason}): leave compile out, or set it to false"
            ) from error
        self._seen.add(shape)
        self.compile_s += time.perf_counter() - began
        return result

    def _sums(self, params: Params, state: Params, episodes: Episode, noise: Noise, phase: Phase) -> Sums:
        # Dynamo wants plain tuples taken apart here.
        support, query = Examples(*episodes.support), Examples(*episodes.query)
        sums = self._algorithm.contribution(
            self._problem, Learned(params, state), Episode(support, query), noise=noise, phase=phase
        )
        flat = torch.cat([self._layout.flatten(sums.gradient), self._state_layout.flatten(sums.state)])
        # Summed in float64, sent in the parameters' own type: the leaves of the fold.
        return flat.to(next(iter(params.values())).dtype), sums.metrics


def _task(episodes: Episode, noise: Noise, t: int) -> tuple[Episode, Noise]:
    """One task as a batch of its own."""
    sides = [Examples(*(None if v is None else v[t : t + 1] for v in side)) for side in episodes]  # type: ignore[arg-type]
    return Episode(*sides), {name: value[t : t + 1] for name, value in noise.items()}


def _without_step(phase: Phase) -> Phase:
    """A step that is a number would be part of the graph, which would be compiled for every step."""
    return phase._replace(step=cast(Any, None))
