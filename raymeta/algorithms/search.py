"""What searches over a table of architectures share: looking one up, the best so far, and regret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import Outer, ScoredAlgorithm
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.alone import Found
from raymeta.models.shapes import require_one
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Noise
from raymeta.tasks.inputs import only
from raymeta.trackers.scores import ScoreName
from raymeta.tree import Params

BEST = "best"
"""Name of what is learned: the best architecture so far [edges]."""
RECORD = "record"
"""Name in memory of its accuracy."""


class ArchitectureSearch(ScoredAlgorithm):
    """Base of the methods for which a task is the evaluation of one architecture of a table (`ArchitectureTable`).

    Evaluations give rows `cell` and `accuracy`. The score is how far the best one so far is below the best of the
    table.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("regression",)
    uses_queries: ClassVar[bool] = False
    score: ClassVar[ScoreName | None] = "regret"

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        return Found(require_one("a search over architectures", tasks.input_shape)[0], self.networks(tasks))

    def networks(self, tasks: TaskSet) -> Mapping[str, nn.Module]:
        """Networks of a method's own, by name."""
        return {}

    def scores(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> dict[str, Tensor]:
        """How far the best cell found is below the best of the table [T, 1]."""

        def one(episode: Episode, noise: Noise) -> dict[str, Tensor]:
            found = accuracy_of(episode, learned.params[BEST])
            return {"regret": (episode.support.y.max() - found)[None], "accuracy": found[None]}

        result: dict[str, Tensor] = problem.map_over_tasks(one, episodes, noise)
        return result


def remember_best(outer: Outer, born: Params) -> None:
    """Keep the first of the best architectures that were `born`, where it is better than all before."""
    first = born["accuracy"].argmax()
    if RECORD not in outer.memory or born["accuracy"][first] > outer.memory[RECORD][0]:
        outer.assign({BEST: born["cell"][first]})
        outer.memory = outer.memory | {RECORD: born["accuracy"][first : first + 1].clone()}


def evaluated(episode: Episode, cell: Tensor) -> Part:
    """A cell with its accuracy, which the table knows."""
    cell = cell.to(only(episode.support.x).dtype)
    accuracy = accuracy_of(episode, cell)
    return Part({}, {"train/query_accuracy": accuracy}, {"cell": cell, "accuracy": accuracy})


def accuracy_of(episode: Episode, cell: Tensor) -> Tensor:
    """Of a cell, looked up in the table."""
    table, accuracies = only(episode.support.x), episode.support.y[:, 0]
    return torch.where((table == cell).all(1), accuracies, 0.0).sum()


def num_operations(episode: Episode) -> Tensor:
    """Choices on each edge."""
    return only(episode.support.x).max() + 1


def operations_of(tasks: TaskSet) -> int:
    """The same, of the table of a task set."""
    return int(num_operations(tasks.episode(TaskKey(0, "train", 0, 0))))
