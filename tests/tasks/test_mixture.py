"""The mixture of four families: every task is a function of its own, and all are drawn equally often."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from raymeta.keys import TaskKey
from raymeta.tasks.mixture import RANGES, Mixture

TASKS = Mixture(shot=6, query_shot=20)
KEYS = [TaskKey(0, "test", 0, i) for i in range(400)]


def points(key: TaskKey) -> tuple[np.ndarray, np.ndarray]:
    x, y = (
        torch.cat(pair)[:, 0].double().numpy() for pair in zip(*(side[:2] for side in TASKS.episode(key)), strict=True)
    )
    return x, y


def test_every_task_is_a_function_of_its_family() -> None:
    degrees = {"line": 1, "quadratic": 2, "cubic": 3}
    seen = Counter()
    for key in KEYS:
        family, (x, y) = TASKS.family(key), points(key)
        seen[family] += 1
        assert abs(x).max() <= 5
        if family in degrees:
            fitted = np.polyfit(x, y, degrees[family])
            np.testing.assert_allclose(np.polyval(fitted, x), y, atol=1e-4)
            assert all(low - 1e-3 <= c <= high + 1e-3 for c, (low, high) in zip(fitted, RANGES[family], strict=True))
            continue
        errors = []
        for frequency in np.linspace(0.8, 1.2, 401):
            basis = np.stack([np.sin(frequency * x), np.ones_like(x)], 1)
            solution, *_ = np.linalg.lstsq(basis, y, rcond=None)
            errors.append((abs(basis @ solution - y).max(), *solution))
        error, amplitude, shift = min(errors)
        assert error < 0.02
        assert 0.05 < amplitude < 5.05
        assert -0.05 < shift < 6.33
    assert set(seen) == set(RANGES)
    assert all(abs(count - 100) < 35 for count in seen.values())


def test_a_batch_is_its_tasks_and_families_can_be_chosen() -> None:
    batch = TASKS.episodes(KEYS[:5])
    for t, key in enumerate(KEYS[:5]):
        for side, stacked in zip(TASKS.episode(key), batch, strict=True):
            assert torch.equal(side.x, stacked.x[t])
            assert torch.equal(side.y, stacked.y[t])
    lines = Mixture(families=("line",))
    assert {lines.family(key) for key in KEYS} == {"line"}
    assert lines.episode(TaskKey(0, "train", 0, 0)).query.y.shape == (10, 1)
    assert lines.episode(TaskKey(0, "test", 0, 0)).query.y.shape == (100, 1)
