"""Regularised evolution: one change to the best of a sample, ageing whatever the fitness, and the top of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import raymeta
from raymeta import Learned, Part, Phase, RegularizedEvolution, TaskKey
from raymeta.adaptation.ageing import fittest, youngest
from raymeta.adaptation.problem import Problem
from raymeta.algorithms.search import BEST
from raymeta.config.load import load_config
from raymeta.errors import ConfigError
from raymeta.tasks import CellTable, Perceptrons

TABLE = CellTable(edges=5, operations=3)
EPISODE = TABLE.episode(TaskKey(0, "train", 0, 0))


def child(alive: dict[str, torch.Tensor], *draws: float, sample: int = 3) -> Part:
    algorithm = RegularizedEvolution(sample=sample)
    problem = Problem(algorithm.network(None, TABLE), goal="regression")  # type: ignore[arg-type]
    noise = {"draws": torch.tensor([*draws, *[0.0] * 5])}
    return algorithm.child(problem, Learned({}, {}, alive), EPISODE, noise=noise, phase=Phase())


@pytest.mark.parametrize(("edge", "turn", "expected"), [(0.0, 0.0, [1, 0, 0, 0, 0]), (0.99, 0.99, [0, 0, 0, 0, 2])])
def test_the_best_of_the_sample_changes_on_one_edge(edge: float, turn: float, expected: list[int]) -> None:
    """The sample is members 3, 1 and 0, of which 1 is the best, though member 2 is better still."""
    cells = torch.tensor([[2.0] * 5, [0.0] * 5, [1.0] * 5, [2.0] * 5])
    alive = {"cell": cells, "accuracy": torch.tensor([0.2, 0.5, 0.9, 0.3])}
    part = child(alive, 0.9, 0.3, 0.1, edge, turn)
    assert part.rows["cell"].tolist() == expected
    row = (EPISODE.support.x == part.rows["cell"]).all(1).nonzero()[0, 0]
    assert part.rows["accuracy"] == EPISODE.support.y[row, 0]


def test_every_other_operation_can_come() -> None:
    alive = {"cell": torch.zeros(1, 5), "accuracy": torch.zeros(1)}
    found = {float(child(alive, 0.0, 0.0, 0.0, 0.5, turn).rows["cell"][2]) for turn in (0.0, 0.49, 0.5, 0.99)}
    assert found == {1.0, 2.0}


class Children:
    """Maps that give numbered children, worse and worse."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: str, *, given: object) -> Children:
        self.asked = function
        return self

    def tasks(self) -> dict[str, torch.Tensor]:
        numbers = torch.arange(self.count, self.count + 4, dtype=torch.float32)
        self.count += 4
        return {"cell": numbers[:, None].repeat(1, 5), "accuracy": 1 - numbers / 1000}


class Outer:
    def __init__(self) -> None:
        self.memory: dict[str, torch.Tensor] = {}
        self.assigned: list[float] = []

    def assign(self, values: dict[str, torch.Tensor]) -> None:
        self.assigned.append(float(values[BEST][0]))


def test_the_oldest_go_whatever_they_are_worth() -> None:
    algorithm, outer, children = RegularizedEvolution(population=10), Outer(), Children()
    asked = []
    for step in range(5):
        algorithm.step(outer, children, Phase(step=step))  # type: ignore[arg-type]
        asked.append(children.asked)
    assert outer.memory["cell"][:, 0].tolist() == list(range(10, 20)), "the first ten are gone, the best among them"
    assert asked == ["random_child"] * 3 + ["child"] * 2
    assert outer.assigned == [0.0], "what was best stays known"


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_it_reaches_the_top_per_cent_of_a_table(tmp_path: Path) -> None:
    """In 320 of 6,561 evaluations; random search of as many is there in few of ten tables."""
    options = {"algorithm.population": 40, "algorithm.sample": 10, "tasks.edges": 8, "tasks.operations": 3}
    for table_seed in range(3):
        run = raymeta.meta_train(
            algorithm="nas_evolution", tasks="cell_table", output=str(tmp_path), steps=40, meta_batch_size=8,
            validate_every=0, **options, **{"tasks.table_seed": table_seed},
        )  # fmt: skip
        table = CellTable(edges=8, operations=3, table_seed=table_seed).episode(TaskKey(0, "test", 0, 0)).support.y
        regrets = 1 - table[:, 0]
        assert run.summary["headline"]["name"] == "regret"
        assert run.summary["headline"]["episodes"] == 1, "a finite test set is scored once"
        assert run.summary["headline"]["value"] <= regrets.sort().values[len(regrets) // 100]


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_it_is_near_the_best_of_real_networks(tmp_path: Path) -> None:
    """In 320 of 4,096 evaluations, among the best four, where random search is among the best 40."""
    accuracies = Perceptrons().table()[1][:, 0].sort(descending=True).values
    regrets = {}
    for population in (40, 10_000):
        run = raymeta.meta_train(
            algorithm="nas_evolution", tasks="perceptrons", model="mlp", output=str(tmp_path), steps=40,
            meta_batch_size=8, validate_every=0, **{"algorithm.population": population, "algorithm.sample": 10},
        )  # fmt: skip
        regrets[population] = run.summary["headline"]["value"]
    assert regrets[40] <= float(accuracies[0] - accuracies[3]) + 1e-6
    assert regrets[40] < regrets[10_000] <= float(accuracies[0] - accuracies[39]) + 1e-6


def test_who_lives_and_who_has_children() -> None:
    """For tensors, arrays and ranges alike."""
    assert youngest(range(7), 3) == range(4, 7)
    assert youngest(range(2), 3) == range(2)
    scores, sample = [0.2, 0.9, 0.4, 0.9], [2, 3, 0, 1]
    for kind in (torch.tensor, np.array):
        assert youngest(kind(scores), 2).tolist() == pytest.approx([0.4, 0.9])
        assert int(fittest(kind(scores), kind(sample))) == 3, "the first of equals in the sample"


@pytest.mark.parametrize("tasks", ["sinusoid", "glyphs"])
def test_only_a_table_of_architectures_is_searched(tasks: str) -> None:
    with pytest.raises(ConfigError, match=f"tasks {tasks} are none: use --tasks perceptrons"):
        load_config(overrides={"algorithm": "nas_evolution", "tasks": tasks, "model": "mlp"})
