"""Regularised evolution: Real, Aggarwal, Huang, Le. Regularized Evolution for Image Classifier Architecture Search.

AAAI 2019. The population are the youngest P individuals. A child mutates the best of S random ones among them; it is
born, and the oldest dies, whatever its fitness. Who is alive and who is a parent is decided by the functions that the
method `nas_evolution` uses, too.

Differences from the paper: (1) age is the order of submission, not of completion, and a child's parents are at least
`lag` births older, so what is tried does not depend on which trial ends first; (2) mutation changes one dimension of
the space: a choice to another one, a number to a neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raymeta.adaptation.ageing import fittest, youngest
from raymeta.sweeps.file.space import Point, Space, Tried, generator


@dataclass(frozen=True)
class Evolution:
    """See the module. `lag` is the number of individuals that may be in evaluation at a time."""

    space: Space
    total: int
    seed: int
    population: int
    tournament: int
    lag: int = 1

    def alive(self, born: int) -> range:
        """Individuals from which the parent of number `born` comes; with a lag of 1 the youngest P."""
        alive: range = youngest(range(max(0, born - (self.lag - 1))), self.population)
        return alive

    def propose(self, history: Sequence[Tried]) -> Point | None:
        born = len(history)
        rng = generator(self.seed, born)
        alive = self.alive(born)
        if len(alive) < self.population:
            return self.space.draw(rng)
        scores = [history[i].score for i in range(alive.stop)]
        if any(scores[i] is None for i in alive):
            return None
        drawn = np.sort(rng.choice(list(alive), size=self.tournament, replace=False))[::-1]  # of equals the youngest
        parent = fittest(np.array(scores, float), drawn)
        return self.space.mutate(history[int(parent)].point, rng)
