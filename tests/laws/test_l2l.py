"""L2L: what the LSTM is given, what a window differentiates, and that windows make one long trajectory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raymeta import L2L, Episode, Examples, Learned, Phase, Problem
from raymeta.algorithms.l2l import quadratic
from raymeta.models.layers.coordinate_lstm import preprocess

DIM = 4


def task(seed: int = 0) -> Episode:
    g = torch.Generator().manual_seed(seed)
    side = Examples(torch.rand(5, DIM, generator=g).double(), torch.rand(5, 1, generator=g).double())
    return Episode(side, side)


def made(**options: int) -> tuple[L2L, Problem, Learned]:
    torch.manual_seed(0)
    algorithm = L2L(hidden=3, layers=2, output_scale=1.0, **options)  # type: ignore[arg-type]
    problem = Problem(algorithm.network(None, None).double(), goal="regression", vectorize="loop")  # type: ignore[arg-type]
    return algorithm, problem, algorithm.init(problem, problem.initial_params(), torch.Generator())


def start(seed: int = 1) -> dict[str, Tensor]:
    return {"theta": torch.randn(DIM, generator=torch.Generator().manual_seed(seed)).double()}


def test_inputs_of_the_paper() -> None:
    """Appendix A with p = 10."""
    found = preprocess(torch.tensor([1.0, -0.003, 1e-6], dtype=torch.float64), 10.0)
    expected = [[0.0, 1.0], [math.log(0.003) / 10, -1.0], [-1.0, math.exp(10) * 1e-6]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_window_of_one_step_has_the_gradient_of_differences() -> None:
    """Its only ∇f does not depend on the LSTM."""
    algorithm, problem, learned = made(unroll=1)
    part = algorithm.first_window(problem, learned, task(), noise=start(), phase=Phase())

    def loss(params: dict[str, Tensor]) -> Tensor:
        losses, _ = algorithm._unrolled(
            problem, learned._replace(params=params), task().support, algorithm._start(start()), 1
        )
        return losses[-1]

    for name, value in learned.params.items():
        direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(3)).double()
        ends = [loss(learned.params | {name: value + sign * 1e-6 * direction}) for sign in (1, -1)]
        assert float((part.sums[name] * direction).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_the_slope_of_the_optimisee_is_an_input_alone() -> None:
    """Two steps by hand, with every ∇f held constant."""
    algorithm, problem, learned = made(unroll=2)
    params = {name: value.clone().requires_grad_() for name, value in learned.params.items()}
    theta, hidden, loss = start()["theta"], torch.zeros(DIM, 2, 2, 3).double(), torch.zeros(())
    for _ in range(2):
        at = theta.detach().requires_grad_()
        (slope,) = torch.autograd.grad(quadratic(task().support, at), at)
        update, hidden = torch.func.functional_call(problem.model, params, (preprocess(slope, 10.0), hidden))
        theta = theta + update
        loss = loss + quadratic(task().support, theta)
    gradient = torch.autograd.grad(loss, list(params.values()))
    part = algorithm.first_window(problem, learned, task(), noise=start(), phase=Phase())
    for found, expected in zip(part.sums.values(), gradient, strict=True):
        torch.testing.assert_close(found, expected)


def test_windows_follow_one_another() -> None:
    algorithm, problem, learned = made(unroll=3)
    first = algorithm.first_window(problem, learned, task(), noise=start(), phase=Phase())
    second = algorithm.window(problem, learned, task(), noise=start(), rows=first.rows, phase=Phase())
    losses, after = algorithm._unrolled(problem, learned, task().support, algorithm._start(start()), 6)
    torch.testing.assert_close(second.rows["theta"], after["theta"])
    torch.testing.assert_close(second.metrics["train/support_loss"], losses[3])
    torch.testing.assert_close(second.metrics["train/query_loss"], losses[6])
    assert not second.rows["theta"].requires_grad


def test_coordinates_that_change_places_change_places() -> None:
    algorithm, problem, learned = made(unroll=4)
    order = torch.tensor([2, 0, 3, 1])
    moved = task().support._replace(x=task().support.x[:, order])
    one = algorithm._unrolled(problem, learned, task().support, algorithm._start(start()), 4)[1]
    rows = algorithm._start({"theta": start()["theta"][order]})
    other = algorithm._unrolled(problem, learned, moved, rows, 4)[1]
    torch.testing.assert_close(other["theta"], one["theta"][order])
