"""Made-up tables: balanced classes that features tell about, sizes by step, padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raymeta.errors import DataError
from raymeta.keys import TaskKey
from raymeta.tasks.tabular_prior import TabularPrior

TASKS = TabularPrior(way=3, shot=20, query_shot=10, train_shots=(2, 6))
KEYS = [TaskKey(0, "test", 0, i) for i in range(200)]


def test_classes_are_balanced_and_disjoint_rows() -> None:
    for key in KEYS[:20]:
        support, query = TASKS.episode(key)
        assert torch.bincount(support.y).tolist() == [20] * 3
        assert torch.bincount(query.y).tolist() == [10] * 3
        rows = torch.cat([support.x, query.x])
        assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_tables_have_from_two_to_all_features_and_zeros_for_the_rest() -> None:
    counts = []
    for key in KEYS:
        x = TASKS.episode(key).support.x
        used = int((x != 0).any(0).nonzero().max()) + 1
        assert not x[:, used:].any()
        counts.append(used)
    assert min(counts) <= 3
    assert max(counts) == 10
    assert len(set(counts)) >= 8


def test_features_tell_about_classes_and_labels_are_in_random_order() -> None:
    """The nearest of three means is better than chance on average, and each class is as often in the middle as any."""
    right, middle = [], []
    for key in KEYS:
        support, query = TASKS.episode(key)
        means = torch.stack([support.x[support.y == n].mean(0) for n in range(3)])
        found = torch.cdist(query.x, means).argmin(1)
        right.append(float((found == query.y).float().mean()))
        middle.append(int((means - means.mean(0)).square().sum(1).argmin()))
    assert 0.45 < np.mean(right) < 0.9
    assert (abs(np.bincount(middle) - 200 / 3) < 35).all()


def test_sizes_are_those_of_the_step_and_a_batch_is_its_tasks() -> None:
    assert {TASKS.size_at("train", step).shot for step in range(100)} == {2, 3, 4, 5, 6}
    assert {TASKS.size_at("test", step).shot for step in range(100)} == {20}
    assert {TASKS.size_at(split, 3).way for split in ("train", "test")} == {3}
    keys = [TaskKey(0, "train", 7, i) for i in range(4)]
    batch = TASKS.episodes(keys)
    for t, key in enumerate(keys):
        for side, stacked in zip(TASKS.episode(key), batch, strict=True):
            assert torch.equal(side.x, stacked.x[t])
    with pytest.raises(DataError, match="differ in size"):
        TASKS.episodes([TaskKey(0, "train", step, 0) for step in range(30)])


def test_classes_are_those_of_the_step_and_drawn_apart_from_rows() -> None:
    tasks = TabularPrior(way=3, train_ways=(2, 4), train_shots=(5, 6))
    sizes = [tasks.size_at("train", step) for step in range(100)]
    assert {(size.way, size.shot) for size in sizes} == {(way, shot) for way in (2, 3, 4) for shot in (5, 6)}
    step = next(step for step, size in enumerate(sizes) if size.way == 2)
    assert torch.bincount(tasks.episode(TaskKey(0, "train", step, 0)).query.y).tolist() == [20, 20]
    assert (tasks.size("train").way, tasks.size_at("test", step).way) == (4, 3)
    assert (tasks.num_classes("train"), tasks.num_classes("test")) == (4, 3)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="features 40 need more than 16 nodes"):
        TabularPrior(features=40)
    with pytest.raises(ValueError, match="train_shots goes from 5 to 2"):
        TabularPrior(train_shots=(5, 2))
    with pytest.raises(ValueError, match="train_ways goes from 4 to 3"):
        TabularPrior(train_ways=(4, 3))
    with pytest.raises(ValueError, match="one class is no question"):
        TabularPrior(train_ways=(1, 3))
