"""L2L: what the LSTM is given, what a window differentiates, and that windows make one long trajectory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raymeta import L2L, Episode, Examples, Learned, Phase, Problem, TaskKey
from raymeta.algorithms.learned_optimizer import OPTIMIZER
from raymeta.models.layers.coordinate_lstm import preprocess
from raymeta.tasks import Quadratics

DIM = 4


def task(seed: int = 0) -> Episode:
    g = torch.Generator().manual_seed(seed)
    side = Examples(torch.rand(5, DIM, generator=g).double(), torch.rand(5, 1, generator=g).double())
    return Episode(side, side)


def value(theta: Tensor) -> Tensor:
    x, y, _ = task().support
    assert isinstance(x, Tensor)
    return (x @ theta - y[:, 0]).square().sum()


def made(**options: int) -> tuple[L2L, Problem, Learned]:
    torch.manual_seed(0)
    algorithm = L2L(hidden=3, layers=2, output_scale=1.0, **options)  # type: ignore[arg-type]
    network = algorithm.network(None, Quadratics(dim=DIM)).double()  # type: ignore[arg-type]
    problem = Problem(network, goal="regression", vectorize="loop")
    return algorithm, problem, algorithm.init(problem, problem.initial_params(), torch.Generator())


def start(seed: int = 1) -> dict[str, Tensor]:
    return {"theta": torch.randn(DIM, generator=torch.Generator().manual_seed(seed)).double()}


def test_inputs_of_the_paper() -> None:
    """Appendix A with p = 10."""
    found = preprocess(torch.tensor([1.0, -0.003, 1e-6], dtype=torch.float64), 10.0)
    expected = [[0.0, 1.0], [math.log(0.003) / 10, -1.0], [-1.0, math.exp(10) * 1e-6]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_only_the_rule_is_learned() -> None:
    _, problem, learned = made()
    assert set(learned.params) == {
        f"{OPTIMIZER}.{n}" for n, _ in problem.model.get_submodule(OPTIMIZER).named_parameters()
    }


def test_a_window_of_one_step_has_the_gradient_of_differences() -> None:
    """Its only ∇f does not depend on the LSTM."""
    algorithm, problem, learned = made(unroll=1)
    part = algorithm.first_window(problem, learned, task(), noise=start(), phase=Phase())

    def loss(params: dict[str, Tensor]) -> Tensor:
        now, rows = learned._replace(params=params), algorithm.start(problem, start())
        return algorithm.unrolled(problem, now, task().support, rows, 1, noise={}, phase=Phase()).losses[-1]

    for name, param in learned.params.items():
        direction = torch.randn(param.shape, generator=torch.Generator().manual_seed(3)).double()
        ends = [loss(learned.params | {name: param + sign * 1e-6 * direction}) for sign in (1, -1)]
        assert float((part.sums[name] * direction).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_the_slope_of_the_optimisee_is_an_input_alone() -> None:
    """Two steps by hand, with every ∇f held constant."""
    algorithm, problem, learned = made(unroll=2)
    params = {name: value.clone().requires_grad_() for name, value in learned.params.items()}
    cells = problem.model.get_submodule(OPTIMIZER).cells
    own = {name.removeprefix(f"{OPTIMIZER}.cells."): value for name, value in params.items()}
    theta, hidden, loss = start()["theta"], torch.zeros(DIM, 2, 2, 3).double(), torch.zeros(())
    for _ in range(2):
        at = theta.detach().requires_grad_()
        (slope,) = torch.autograd.grad(value(at), at)
        update, hidden = torch.func.functional_call(cells, own, (preprocess(slope, 10.0), hidden))  # type: ignore[arg-type]
        theta = theta + update
        loss = loss + value(theta)
    gradient = torch.autograd.grad(loss, list(params.values()))
    part = algorithm.first_window(problem, learned, task(), noise=start(), phase=Phase())
    for found, expected in zip(part.sums.values(), gradient, strict=True):
        torch.testing.assert_close(found, expected)


def test_windows_follow_one_another() -> None:
    algorithm, problem, learned = made(unroll=3)
    first = algorithm.first_window(problem, learned, task(), noise=start(), phase=Phase())
    second = algorithm.window(problem, learned, task(), noise={}, rows=first.rows, phase=Phase(step=1))
    rows = algorithm.start(problem, start())
    whole = algorithm.unrolled(problem, learned, task().support, rows, 6, noise={}, phase=Phase())
    torch.testing.assert_close(second.rows["theta"], whole.rows["theta"])
    torch.testing.assert_close(second.metrics["train/support_loss"], whole.losses[3])
    torch.testing.assert_close(second.metrics["train/query_loss"], whole.losses[6])
    assert not second.rows["theta"].requires_grad


def test_the_start_of_the_paper() -> None:
    """N(0, 0.01²), another one for each task."""
    algorithm, problem, _ = made()
    keys = [TaskKey(0, "train", 0, index) for index in range(200)]
    batch = Quadratics(dim=DIM).episodes(keys)
    theta = algorithm.noise(problem, keys, batch, Phase())["theta"]
    assert theta.shape == (200, DIM)
    assert float(theta.std()) == pytest.approx(0.01, rel=0.1)
    assert len(theta.unique(dim=0)) == 200
