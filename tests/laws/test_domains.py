"""MLDG: on quadratic losses its gradient has a closed form, and its ends are plain training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raymeta import ERM, MLDG, Episode, Examples, Learned, Phase, Plain, Problem
from raymeta.algorithms.base import TrainedModel
from raymeta.tree import Params

SIZE, RATE = 4, 0.07


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SUPPORT, QUERY = (Examples(drawn(SIZE, SIZE, seed=s), drawn(SIZE, 1, seed=s + 10)) for s in (1, 2))


def quadratic(side: Examples) -> tuple[Tensor, Tensor]:
    """A and a of the mean squared error (θ − a)ᵀ A (θ − a) / 2."""
    assert isinstance(side.x, Tensor)
    return 2 * side.x.T @ side.x / SIZE, torch.linalg.solve(side.x, side.y)[:, 0]


def gradient(algorithm: TrainedModel, vectorize: Any = "vmap", tasks: int = 1) -> Tensor:
    """The mean over tasks of the gradient in θ."""
    problem = Problem(nn.Linear(SIZE, 1, bias=False).double(), goal="regression", vectorize=vectorize)
    sides = [Examples(side.x.expand(tasks, -1, -1), side.y.expand(tasks, -1, -1)) for side in (SUPPORT, QUERY)]  # type: ignore[union-attr]
    part = algorithm.contribution(
        problem, Learned({"weight": THETA[None]}, {}), Episode(*sides), noise={}, phase=Phase()
    )
    return part.sums["weight"][0] / tasks


THETA = drawn(SIZE, seed=5)


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_the_gradient_is_the_closed_form(weight: float, vectorize: Any) -> None:
    (of_f, f), (of_g, g) = quadratic(SUPPORT), quadratic(QUERY)
    ahead = THETA - RATE * of_f @ (THETA - f)
    through = torch.eye(SIZE, dtype=torch.float64) - RATE * of_f
    expected = of_f @ (THETA - f) + weight * through @ of_g @ (ahead - g)
    found = gradient(MLDG(inner_lr=RATE, query_weight=weight), vectorize, tasks=2)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_without_the_derivative_of_the_step_it_is_of_first_order() -> None:
    (of_f, f), (of_g, g) = quadratic(SUPPORT), quadratic(QUERY)
    ahead = THETA - RATE * of_f @ (THETA - f)
    found = gradient(MLDG(inner_lr=RATE, first_order=True))
    torch.testing.assert_close(found, of_f @ (THETA - f) + of_g @ (ahead - g), rtol=1e-12, atol=1e-13)


def test_domainbeds_form_looks_ahead_by_a_fresh_adam() -> None:
    (of_f, f), (of_g, g) = quadratic(SUPPORT), quadratic(QUERY)
    first = of_f @ (THETA - f)
    ahead = THETA - RATE * first / ((first.square() + 1e-8).sqrt() + 1e-8)
    found = gradient(MLDG(inner_lr=RATE, first_order=True, inner_optimizer="adam"))
    torch.testing.assert_close(found, first + of_g @ (ahead - g), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("first_order", [True, False])
def test_without_the_domains_put_aside_it_is_training_on_the_others(first_order: bool) -> None:
    found = gradient(MLDG(query_weight=0.0, first_order=first_order))
    torch.testing.assert_close(found, gradient(Plain()), rtol=1e-12, atol=1e-13)


def test_without_a_step_it_is_erm_on_all_domains() -> None:
    found = gradient(MLDG(inner_lr=0.0))
    torch.testing.assert_close(found, 2 * gradient(ERM()), rtol=1e-12, atol=1e-13)
    both = gradient(MLDG(inner_lr=0.0, query_weight=0.5))
    expected = gradient(Plain()) + 0.5 * gradient(Plain(part="clean"))
    torch.testing.assert_close(both, expected, rtol=1e-12, atol=1e-13)


def test_at_test_the_model_is_as_it_is() -> None:
    problem = Problem(nn.Linear(SIZE, 1, bias=False).double(), goal="regression")
    params: Params = {"weight": THETA[None]}
    (predict,) = MLDG().adapt(problem, Learned(params, {}), SUPPORT, noise={}, phase=Phase(training=False)).predictors
    assert isinstance(QUERY.x, Tensor)
    torch.testing.assert_close(predict(QUERY.x), QUERY.x @ THETA[:, None])
