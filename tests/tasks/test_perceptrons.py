"""The table of real networks: what its columns mean, and that training a few again gives its numbers."""

from __future__ import annotations

import itertools
from types import ModuleType

import pytest
import torch
from by_path import program

from raymeta import TaskKey
from raymeta.tasks import CellTable, Perceptrons


def benchmark() -> ModuleType:
    return program("benchmarks/tabular_space.py")


def test_every_network_is_there_once() -> None:
    cells, accuracies = Perceptrons().table()
    assert cells.shape == (4**6, 6)
    assert len(cells.unique(dim=0)) == 4**6
    assert accuracies.shape == (4**6, 1)
    assert 0.2 < float(accuracies.min()) < 0.5
    assert 0.95 < float(accuracies.max()) < 1
    assert int((accuracies == accuracies.max()).sum()) == 1


def test_wider_layers_are_better_on_average() -> None:
    """So even columns are widths."""
    cells, accuracies = Perceptrons().table()
    for edge in (0, 2, 4):
        means = [float(accuracies[cells[:, edge] == width].mean()) for width in range(4)]
        assert means == sorted(means)


def test_the_file_lists_networks_as_the_table_does() -> None:
    """Each number is the one of its widths and activations."""
    module, cells = benchmark(), Perceptrons().table()[0].int().tolist()
    right = {}
    for places in itertools.product(range(4), repeat=3):
        code = torch.zeros(4, 4, 4, dtype=torch.long)
        for acts in itertools.product(range(4), repeat=3):
            code[acts] = int("".join(f"{w}{a}" for w, a in zip(places, acts, strict=True)))
        right[tuple(module.WIDTHS[place] for place in places)] = code
    assert module.listed(right) == [int("".join(map(str, cell))) for cell in cells]


@pytest.mark.slow
def test_training_again_gives_about_the_same_numbers() -> None:
    pytest.importorskip("sklearn")
    module = benchmark()
    found = module.trained((16, 4, 8), *module.digits()).flatten() / (3 * 797)
    cells, accuracies = Perceptrons().table()
    same = (cells[:, ::2] == torch.tensor([2.0, 0.0, 1.0])).all(1)
    assert float((accuracies[same, 0] - found).abs().mean()) < 0.02


@pytest.mark.parametrize("tasks", [Perceptrons(), CellTable(edges=3)])
def test_every_task_is_the_whole_table(tasks: Perceptrons | CellTable) -> None:
    keys = [TaskKey(0, "test", 0, index) for index in range(2)]
    batch, (cells, accuracies) = tasks.episodes(keys), tasks.table()
    for index, key in enumerate(keys):
        assert torch.equal(tasks.episode(key).support.x, cells)  # type: ignore[arg-type]
        assert torch.equal(batch.support.x[index], cells)  # type: ignore[index]
        assert torch.equal(batch.support.y[index], accuracies)
    assert tasks.num_episodes("test") == 1
    assert tasks.size("test").shot == len(cells)
