"""Sinusoid tasks: their distribution, and the anchors that no model that does not adapt can pass."""

from __future__ import annotations

import math

import pytest
import torch

from raymeta.keys import TaskKey
from raymeta.tasks.sinusoid import Sinusoid

TASKS = Sinusoid(shot=5, query_shot=100)
KEYS = [TaskKey(0, "test", 0, i) for i in range(20_000)]


def test_zero_and_best_constant_predictors() -> None:
    """E[y²] = E[A²]/2 = 4.2517; the best predictor without adaptation, −(2/π) E[A] cos x, leaves 3.0057."""
    query = TASKS.episodes(KEYS).query
    x, y = query.x.double(), query.y.double()
    errors = {0.0: 4.2517, -(2 / math.pi) * 2.55: 3.0057}
    for factor, expected in errors.items():
        per_task = (y - factor * x.cos()).square().mean((1, 2))
        interval = 3 * float(per_task.std()) / len(KEYS) ** 0.5
        assert float(per_task.mean()) == pytest.approx(expected, abs=interval)
        assert interval < 0.1


def test_batch_equals_single_and_is_a_sine() -> None:
    batch = TASKS.episodes(KEYS[:4])
    for t, key in enumerate(KEYS[:4]):
        single = TASKS.episode(key)
        for side, stacked in zip(single, batch, strict=True):
            assert torch.equal(side.x, stacked.x[t])
            assert torch.equal(side.y, stacked.y[t])
    x, y = batch.query.x[0].double(), batch.query.y[0].double()
    basis = torch.cat([x.sin(), x.cos()], 1)
    fitted = basis @ torch.linalg.lstsq(basis, y).solution
    torch.testing.assert_close(fitted, y, atol=1e-6, rtol=0)


def test_sizes_and_splits() -> None:
    train = TASKS.episode(TaskKey(0, "train", 0, 0))
    assert train.support.x.shape == train.query.x.shape == (5, 1)
    test = TASKS.episode(TaskKey(0, "test", 0, 0))
    assert test.query.x.shape == (100, 1)
    assert not torch.equal(train.support.x, test.support.x)
    assert train.support.x.dtype == torch.float32
    assert float(test.query.x.abs().max()) <= 5
