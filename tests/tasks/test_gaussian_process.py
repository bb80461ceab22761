"""Functions of a Gaussian process: their covariances, their sizes by step, and the exact posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from raymeta.errors import DataError
from raymeta.keys import TaskKey
from raymeta.tasks.episodes import Episode, Examples
from raymeta.tasks.gaussian_process import GaussianProcess, Kernel, exact, posterior

TASKS = GaussianProcess(noise=(0.1, 0.1), shot=3, query_shot=4)
KEYS = [TaskKey(0, "test", 0, i) for i in range(2_000)]
KERNEL = Kernel(0.4, 1.0, 0.1)


def test_values_have_the_covariance_of_their_kernel() -> None:
    """Values times the inverse of a Cholesky factor are independent and normal."""
    whitened = []
    for episode in map(TASKS.episode, KEYS):
        x, y = (torch.cat(pair).double() for pair in zip(episode.support[:2], episode.query[:2], strict=True))
        half = torch.linalg.cholesky(KERNEL.noisy(x))
        whitened.append(torch.linalg.solve_triangular(half, y, upper=False)[:, 0])
    values = torch.stack(whitened)
    torch.testing.assert_close(values.T @ values / len(KEYS), torch.eye(7, dtype=torch.float64), rtol=0, atol=0.1)


def test_the_posterior_is_the_conditional_of_the_joint_distribution() -> None:
    """log p(y_Q | y_S) = log p(y_S, y_Q) − log p(y_S) for one query; many queries have the same marginals."""
    episode = TASKS.episode(KEYS[0])
    support, query = episode
    for q in range(4):
        x, y = (torch.cat([s, one[q : q + 1]]).double() for s, one in zip(support[:2], query[:2], strict=True))
        joint, known = (
            MultivariateNormal(torch.zeros(len(part)).double(), KERNEL.noisy(part)).log_prob(value[:, 0])
            for part, value in ((x, y), (x[:-1], y[:-1]))
        )
        assert float(exact(KERNEL, episode)[q]) == pytest.approx(float(known - joint), rel=1e-9)


def test_far_away_the_posterior_is_the_prior_and_at_a_point_its_value() -> None:
    support = Examples(torch.tensor([[0.0]]), torch.tensor([[2.0]]))
    mean, variance = posterior(Kernel(0.4, 1.5, 1e-6), support, torch.tensor([[100.0], [0.0]]))
    assert mean[:, 0].tolist() == pytest.approx([0, 2], abs=1e-9)
    assert variance[:, 0].tolist() == pytest.approx([1.5**2, 0], abs=1e-9)


def test_no_wrong_kernel_is_better_on_average() -> None:
    episodes = [TASKS.episode(key) for key in KEYS]
    right = torch.stack([exact(KERNEL, episode).mean() for episode in episodes])
    for wrong in (Kernel(0.5, 1.0, 0.1), Kernel(0.4, 1.3, 0.1), Kernel(0.4, 1.0, 0.2)):
        other = torch.stack([exact(wrong, episode).mean() for episode in episodes])
        assert float((other - right).mean()) > 3 * float((other - right).std()) / math.sqrt(len(KEYS))


def test_a_batch_is_its_tasks() -> None:
    tasks = GaussianProcess(length_scale=(0.2, 1.0), amplitude=(0.5, 2.0), noise=(0.01, 0.3), dim=2)
    keys = [TaskKey(0, "train", 7, i) for i in range(5)]
    batch = tasks.episodes(keys)
    for t, key in enumerate(keys):
        for side, stacked in zip(tasks.episode(key), batch, strict=True):
            assert torch.equal(side.x, stacked.x[t])
            assert torch.equal(side.y, stacked.y[t])
    kernels = [tasks.kernel(key) for key in keys]
    assert len(set(kernels)) == 5
    assert all(0.2 <= kernel.length_scale <= 1 and 0.5 <= kernel.amplitude <= 2 for kernel in kernels)
    assert batch.support.x.shape[2] == 2


def test_training_sizes_are_drawn_by_step_and_those_of_tests_are_not() -> None:
    tasks = GaussianProcess(train_shots=(2, 6), shot=9)
    sizes = [tasks.size_at("train", step) for step in range(300)]
    assert {size.shot for size in sizes} == {2, 3, 4, 5, 6}
    counts = np.bincount([size.shot for size in sizes])[2:]
    assert (abs(counts - 60) < 30).all()
    assert {tasks.size_at("test", step).shot for step in range(20)} == {9}
    for step in range(20):
        episode: Episode = tasks.episode(TaskKey(0, "train", step, 1))
        assert len(episode.support.y) == tasks.size_at("train", step).shot
    unlike = [TaskKey(0, "train", step, 0) for step in range(300)]
    with pytest.raises(DataError, match="differ in size"):
        tasks.episodes(unlike)


def test_ranges_go_up() -> None:
    with pytest.raises(ValueError, match="train_shots goes from 5 to 2"):
        GaussianProcess(train_shots=(5, 2))
