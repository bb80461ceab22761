"""Learners of a task on features solve what they say: logistic regression and the multi-class SVM."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from raymeta.algorithms.logistic import logistic_regression
from raymeta.algorithms.metaoptnet import crammer_singer, onto_simplex

WAY = 3
LABELS = torch.arange(WAY).repeat(4)
ONE_HOT = F.one_hot(LABELS, WAY).double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(size: int = 5) -> Tensor:
    return draw(len(LABELS), size) + 0.5 * F.pad(ONE_HOT, (0, size - WAY))


# Logistic regression


def logistic_loss(weights: Tensor, z: Tensor, ridge: float) -> Tensor:
    signs = 2 * ONE_HOT - 1
    return F.softplus(-signs * (z @ weights)).sum() + ridge / 2 * weights.square().sum()


@pytest.mark.parametrize("size", [3, 20])
def test_newtons_method_ends_where_the_gradient_is_zero(size: int) -> None:
    z, ridge = features(size), torch.tensor([0.7], dtype=torch.float64)
    weights = logistic_regression(z, ONE_HOT, ridge, steps=12)
    gradient = torch.func.grad(logistic_loss)(weights, z, 0.7)
    assert float(gradient.abs().max()) < 1e-10


def test_a_newton_step_is_that_of_the_hessian() -> None:
    """The second step, of one class, from the weights of the first."""
    z, ridge = features(), torch.tensor([0.7], dtype=torch.float64)
    one, two = (logistic_regression(z, ONE_HOT, ridge, steps)[:, 0] for steps in (1, 2))

    def loss(w: Tensor) -> Tensor:
        return F.softplus(-(2 * ONE_HOT[:, 0] - 1) * (z @ w)).sum() + 0.35 * w.square().sum()

    gradient, hessian = torch.func.grad(loss)(one), torch.func.hessian(loss)(one)
    torch.testing.assert_close(two, one - torch.linalg.solve(hessian, gradient), rtol=1e-9, atol=1e-11)


def test_derivatives_pass_the_steps() -> None:
    z, ridge = features().requires_grad_(), torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, ridge: logistic_regression(z, ONE_HOT, ridge, 3), (z, ridge))


# The support vector machine


def primal(weights: Tensor, z: Tensor, cost: float) -> Tensor:
    """‖W‖²/2 + C Σ max_k(z w_k + 1[k ≠ y] − z w_y), the problem of Crammer and Singer."""
    scores = z @ weights
    margins = scores + 1 - ONE_HOT - (scores * ONE_HOT).sum(1, keepdim=True)
    return weights.square().sum() / 2 + cost * margins.amax(1).sum()


def dual(alpha: Tensor, z: Tensor) -> Tensor:
    return (alpha * ONE_HOT).sum() - (z.T @ alpha).square().sum() / 2


@pytest.mark.parametrize("cost", [0.1, 1.0])
def test_the_gap_between_primal_and_dual_closes(cost: float) -> None:
    z = features()
    gaps = []
    for steps in (5, 50, 3000):
        alpha = crammer_singer(z, ONE_HOT, cost, steps)
        assert float(alpha.sum(1).abs().max()) < 1e-12
        assert bool((alpha <= cost * ONE_HOT + 1e-12).all())
        gaps.append(float(primal(z.T @ alpha, z, cost) - dual(alpha, z)))
    assert gaps[0] > gaps[1] > -1e-9
    assert abs(gaps[2]) < 1e-6


def test_the_nearest_point_of_a_simplex() -> None:
    v = draw(50, 4)
    found = onto_simplex(v, 0.7)
    torch.testing.assert_close(found.sum(1), torch.full((50,), 0.7, dtype=torch.float64))
    assert bool((found >= 0).all())
    others = torch.rand(200, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    others = 0.7 * others / others.sum(1, keepdim=True)
    nearest = (v[:, None] - others).square().sum(-1).amin(1)
    assert bool(((v - found).square().sum(1) <= nearest + 1e-12).all())


def test_derivatives_pass_the_solver() -> None:
    z = features().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: z.T @ crammer_singer(z, ONE_HOT, 0.3, 8), (z,))


def test_classes_turn_together() -> None:
    z, order = features(), torch.tensor([2, 0, 1])
    straight, turned = (crammer_singer(z, y, 0.3, 40) for y in (ONE_HOT, ONE_HOT[:, order]))
    torch.testing.assert_close(straight[:, order], turned, rtol=1e-10, atol=1e-12)
