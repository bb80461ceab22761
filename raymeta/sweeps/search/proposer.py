"""Which configuration comes next. A proposer is a pure function of what was tried before, so it needs no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from raymeta.sweeps.file.schema import EvolutionSearch, GridSearch, RaySearch, Tpe
from raymeta.sweeps.file.space import Point, Space, Tried, generator
from raymeta.sweeps.file.sweep import Sweep
from raymeta.sweeps.search.evolution import Evolution


class Proposer(Protocol):
    """Says what to try."""

    @property
    def total(self) -> int:
        """How many configurations there are in all."""

    def propose(self, history: Sequence[Tried]) -> Point | None:
        """The configuration that comes after `history`; None to wait for results."""


@dataclass(frozen=True)
class Listed:
    """Configurations that are known from the start: random draws, a grid, or a grid with draws of the rest."""

    points: tuple[Point, ...]

    @property
    def total(self) -> int:
        return len(self.points)

    def propose(self, history: Sequence[Tried]) -> Point | None:
        return self.points[len(history)]


@dataclass(frozen=True)
class ParzenEstimator:
    """Optuna's TPE, told everything again each time: the study is a function of the history and the seed."""

    space: Space
    total: int
    seed: int
    options: Tpe

    def propose(self, history: Sequence[Tried]) -> Point | None:
        from raymeta.sweeps.search.tpe import ask

        return ask(self.space, history, seed=self.seed + len(history), options=self.options)


def proposer(sweep: Sweep) -> Proposer:
    """The proposer that a sweep file asks for. Raises `EnvironmentProblem` where its package is missing."""
    file, space = sweep.file, sweep.space
    search = file.search
    if isinstance(search, GridSearch):
        return Listed(tuple(space.crossed(every_choice=True)))
    if isinstance(search, Tpe):
        return ParzenEstimator(space, file.samples, file.seed, search)
    if isinstance(search, EvolutionSearch):
        return Evolution(space, file.samples, file.seed, search.population, search.tournament, file.concurrent or 1)
    if isinstance(search, RaySearch):
        from raymeta.sweeps.search.ray_search import RaySearcher

        return RaySearcher(space, file.samples, search)
    grid = space.crossed()
    draws = [space.draw(generator(file.seed, i), grid[i % len(grid)]) for i in range(file.samples * len(grid))]
    return Listed(tuple(draws))
