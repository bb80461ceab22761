"""iMAML: closed forms on quadratics, finite differences of the solved inner problem, its first-order limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from equal_bits import require_equal_bits
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from raymeta import IMAML, MAML, Episode, Examples, meta_gradient
from raymeta.algorithms.imaml import conjugate_gradients

VECTORIZE = ("vmap", "loop")


class Point(nn.Module):
    """A model that is its parameter: outputs θ [n, d] whatever the input."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.theta.expand(len(x), -1)


def quadratic(theta: Tensor, y: Tensor) -> Tensor:
    """½ (θ − a)ᵀ A (θ − a) with y [1, d, d + 1] = (A | a)."""
    matrix, center = y[0, :, :-1], y[0, :, -1]
    return 0.5 * (theta[0] - center) @ matrix @ (theta[0] - center)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(dim: int, seed: int) -> Tensor:
    root = draw(dim, dim, seed=seed)
    return root @ root.T / dim + torch.eye(dim, dtype=torch.float64)


def quadratics() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Episode]:
    """A, a of the support, B, b of the query, a start, and their episode."""
    a_matrix, b_matrix, (a, b, start) = spd(4, 1), spd(4, 2), draw(3, 4, seed=3)
    ys = [torch.cat([matrix, center[:, None]], 1)[None] for matrix, center in ((a_matrix, a), (b_matrix, b))]
    episode = Episode(*(Examples(torch.zeros(1, 1, dtype=torch.float64), y) for y in ys))
    return a_matrix, a, b_matrix, b, start, episode


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_closed_form_on_quadratics(vectorize: Any) -> None:
    """φ* = (A + λI)⁻¹ (Aa + λθ), and the meta-gradient is (I + A/λ)⁻¹ B (φ* − b)."""
    a_matrix, a, b_matrix, b, start, episode = quadratics()
    eye, pull = torch.eye(4, dtype=torch.float64), 0.7
    solution = torch.linalg.solve(a_matrix + pull * eye, a_matrix @ a + pull * start)
    expected = torch.linalg.solve(eye + a_matrix / pull, b_matrix @ (solution - b))
    algorithm = IMAML(inner_steps=400, inner_lr=0.2, proximal=pull, cg_steps=4)
    found = meta_gradient(Point(start), algorithm, [episode], loss=quadratic, vectorize=vectorize)["theta"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    unrolled = torch.linalg.matrix_power(eye - 0.2 * (a_matrix + pull * eye), 400)
    through_all_steps = (unrolled + (eye - unrolled) @ torch.linalg.inv(a_matrix + pull * eye) * pull).T
    torch.testing.assert_close(found, through_all_steps @ b_matrix @ (solution - b), rtol=1e-12, atol=1e-13)


def test_damping_is_added_to_the_identity() -> None:
    a_matrix, _, b_matrix, b, start, episode = quadratics()
    algorithm = IMAML(inner_steps=0, proximal=0.7, cg_steps=4, cg_damping=1.0)
    found = meta_gradient(Point(start), algorithm, [episode], loss=quadratic)["theta"]
    eye = torch.eye(4, dtype=torch.float64)
    expected = torch.linalg.solve(2 * eye + a_matrix / 0.7, b_matrix @ (start - b))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_a_strong_pull_gives_the_first_order_gradient() -> None:
    _, _, b_matrix, b, start, episode = quadratics()
    errors = []
    for pull in (1e4, 1e6):
        algorithm = IMAML(inner_steps=50, inner_lr=0.5 / pull, proximal=pull)
        found = meta_gradient(Point(start), algorithm, [episode], loss=quadratic)["theta"]
        errors.append(float((found - b_matrix @ (start - b)).norm()))
    assert errors[1] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05), "the gap falls as 1/λ"


def test_as_many_steps_as_dimensions_solve_a_system_and_more_change_nothing() -> None:
    matrix, wanted = spd(6, 4), draw(6, seed=5)

    def solved(num_steps: int) -> Tensor:
        return conjugate_gradients(lambda x: {"x": matrix @ x["x"]}, {"x": wanted}, num_steps)["x"]

    exact = torch.linalg.solve(matrix, wanted)
    torch.testing.assert_close(solved(6), exact, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(solved(60), exact, rtol=1e-12, atol=1e-13)
    nothing = conjugate_gradients(lambda x: {"x": matrix @ x["x"]}, {"x": torch.zeros(6, dtype=torch.float64)}, 3)
    assert (nothing["x"] == 0).all()


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_without_conjugate_gradients_it_is_first_order_maml_on_the_same_way(vectorize: Any) -> None:
    start, episode = quadratics()[4:]
    algorithm = IMAML(inner_steps=5, inner_lr=0.2, proximal=1e-14, cg_steps=0)
    found = meta_gradient(Point(start), algorithm, [episode], loss=quadratic, vectorize=vectorize)["theta"]
    first = MAML(inner_steps=5, inner_lr=0.2, first_order=True)
    expected = meta_gradient(Point(start), first, [episode], loss=quadratic, vectorize=vectorize)["theta"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


# A network


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3)).double()


def episodes(count: int) -> list[Episode]:
    y = torch.arange(3).repeat_interleave(4)
    return [Episode(*(Examples(draw(12, 4, seed=20 * t + s), y) for s in (0, 1))) for t in range(count)]


PULL = 2.0


def solved_query_loss(model: nn.Module, params: dict[str, Tensor], episode: Episode) -> Tensor:
    """L_Q at the minimiser of the inner problem, found by plain autograd: no part of raymeta is used."""
    phi = {name: value.clone().requires_grad_() for name, value in params.items()}
    for _ in range(300):
        loss = F.cross_entropy(functional_call(model, phi, (episode.support.x,)), episode.support.y)
        loss = loss + sum(PULL / 2 * (phi[n] - params[n]).square().sum() for n in phi)
        gradient = torch.autograd.grad(loss, list(phi.values()))
        phi = {n: (p - 0.1 * g).detach().requires_grad_() for (n, p), g in zip(phi.items(), gradient, strict=True)}
    return F.cross_entropy(functional_call(model, phi, (episode.query.x,)), episode.query.y).detach()


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_equals_finite_differences_of_the_solved_problem(vectorize: Any) -> None:
    model, (episode,) = network(), episodes(1)
    algorithm = IMAML(inner_steps=300, inner_lr=0.1, proximal=PULL, cg_steps=40)
    gradient = meta_gradient(model, algorithm, [episode], vectorize=vectorize)
    params = {name: p.detach() for name, p in model.named_parameters()}
    direction = {n: draw(*p.shape, seed=i) for i, (n, p) in enumerate(params.items())}
    ends = [
        solved_query_loss(model, {n: p + s * 1e-4 * direction[n] for n, p in params.items()}, episode) for s in (1, -1)
    ]
    ours = float(sum((gradient[n] * direction[n]).sum() for n in params))
    assert ours == pytest.approx(float(ends[0] - ends[1]) / 2e-4, rel=1e-6)


def test_loop_equals_vmap() -> None:
    tasks = episodes(3)
    both = [meta_gradient(network(), IMAML(inner_steps=4), tasks, vectorize=v) for v in VECTORIZE]
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=1e-9, atol=1e-11)


def test_without_curvature_it_is_first_order_maml() -> None:
    """One CG step on a multiple of the identity is exact: where L_S is linear, x = ∇L_Q on the same trajectory."""

    def linear_or_quadratic(theta: Tensor, y: Tensor) -> Tensor:
        return quadratic(theta, y) + (y[0, :, :-1].square().sum() == 0) * (theta[0] @ y[0, :, -1])

    _, a, b_matrix, b, start, episode = quadratics()
    slope = torch.cat([torch.zeros(4, 4, dtype=torch.float64), a[:, None]], 1)[None]
    linear = episode._replace(support=episode.support._replace(y=slope))
    implicit, first = (
        meta_gradient(Point(start), algorithm, [linear], loss=linear_or_quadratic)["theta"]
        for algorithm in (
            IMAML(inner_steps=1, inner_lr=0.3, cg_steps=1),
            MAML(inner_steps=1, inner_lr=0.3, first_order=True),
        )
    )
    torch.testing.assert_close(implicit, first, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(first, b_matrix @ (start - 0.3 * a - b), rtol=1e-13, atol=1e-14)


@pytest.mark.slow
def test_bits(local_ray: Any, tmp_path: Path) -> None:
    options = {"tasks": "sinusoid", "model": "mlp", "algorithm.inner_steps": 3, "algorithm.inner_lr": 0.01}
    run = require_equal_bits(tmp_path, algorithm="imaml", **options)
    losses = [row["train/query_loss"] for row in run.metrics()]
    assert losses[0] != losses[-1]
    assert all("train/support_loss" in row for row in run.metrics())
