"""R2-D2: ridge regression by the Woodbury identity is that of the normal equations; its scalars are learned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from equal_bits import last_params, require_equal_bits
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from raymeta import R2D2, Episode, Examples, meta_gradient
from raymeta.algorithms.r2d2 import LOG_RIDGE, LOG_SCALE, SHIFT, ridge_regression, with_ones

VECTORIZE = ("vmap", "loop")
WAY = 3


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episodes(count: int) -> list[Episode]:
    y = torch.arange(WAY).repeat_interleave(4)
    return [Episode(*(Examples(draw(12, 4, seed=20 * t + s), y) for s in (0, 1))) for t in range(count)]


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5)).double()


@pytest.mark.parametrize("features", [3, 20], ids=lambda d: f"{d} features")
def test_woodbury_is_the_normal_equations_and_least_squares(features: int) -> None:
    z, y, ridge = draw(8, features, seed=0), draw(8, WAY, seed=1), torch.tensor([0.3], dtype=torch.float64)
    found = ridge_regression(z, y, ridge)
    eye = torch.eye(features, dtype=torch.float64)
    primal = torch.linalg.solve(z.T @ z / 8 + ridge * eye, z.T @ y / 8)
    torch.testing.assert_close(found, primal, rtol=1e-12, atol=1e-14)
    rows = torch.cat([z / 8**0.5, ridge.sqrt() * eye])
    targets = torch.cat([y / 8**0.5, torch.zeros(features, WAY, dtype=torch.float64)])
    torch.testing.assert_close(found, torch.linalg.lstsq(rows, targets).solution, rtol=1e-11, atol=1e-13)


def test_strong_regularisation_gives_sums_of_inner_products() -> None:
    z, y = draw(8, 5, seed=0), draw(8, WAY, seed=1)
    ridge = torch.tensor([1e9], dtype=torch.float64)
    torch.testing.assert_close(ridge * ridge_regression(z, y, ridge), z.T @ y / 8, rtol=1e-7, atol=1e-8)


def test_derivative_of_the_weights_in_lambda() -> None:
    z, y, ridge = draw(8, 5, seed=0), draw(8, WAY, seed=1), torch.tensor([0.3], dtype=torch.float64)
    found = torch.func.jacrev(lambda r: ridge_regression(z, y, r))(ridge)[..., 0]
    gram = z @ z.T / 8 + ridge * torch.eye(8, dtype=torch.float64)
    expected = -z.T @ torch.linalg.solve(gram, torch.linalg.solve(gram, y / 8))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def independent_loss(params: dict[str, Tensor], episode: Episode, loss: Any) -> Tensor:
    """The query loss by the normal equations: no part of raymeta is used."""
    z_S, z_Q = (functional_call(network(), _own(params), (side.x,)) for side in episode)
    z_S, z_Q = (torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], 1) for z in (z_S, z_Q))
    y = torch.eye(WAY, dtype=torch.float64)[episode.support.y]
    eye = torch.eye(6, dtype=torch.float64)
    weights = torch.linalg.solve(z_S.T @ z_S / len(y) + params[LOG_RIDGE].exp() * eye, z_S.T @ y / len(y))
    return loss(params[LOG_SCALE].exp() * z_Q @ weights + params[SHIFT], episode.query.y)


def _own(params: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in params.items() if not name.startswith("ridge/")}


def squares(outputs: Tensor, y: Tensor) -> Tensor:
    """A loss that sees the shift."""
    return (outputs - (y[:, None] == torch.arange(outputs.shape[1])).to(outputs.dtype)).square().mean()


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("loss", [F.cross_entropy, squares])
def test_meta_gradient_equals_finite_differences(vectorize: Any, loss: Any) -> None:
    scalars = {LOG_RIDGE: math.log(0.2), LOG_SCALE: math.log(3.0), SHIFT: 0.4}
    scalars_at = {name: torch.tensor([value], dtype=torch.float64) for name, value in scalars.items()}
    params = {n: p.detach() for n, p in network().named_parameters()} | scalars_at
    (episode,) = episodes(1)
    own = None if loss is F.cross_entropy else loss
    gradient = meta_gradient(network(), R2D2(), [episode], vectorize=vectorize, params=scalars_at, loss=own)
    assert list(gradient) == list(params)
    for name, value in params.items():
        for seed in (1, 2):
            direction = draw(*value.shape, seed=seed)
            ends = [independent_loss(params | {name: value + s * direction}, episode, loss) for s in (1e-5, -1e-5)]
            ours, measured = float((gradient[name] * direction).sum()), float(ends[0] - ends[1]) / 2e-5
            assert ours == pytest.approx(measured, rel=1e-6, abs=1e-9), name
    seen = abs(float(gradient[SHIFT]))
    assert (seen < 1e-14) if loss is F.cross_entropy else (seen > 1e-3)


def test_loop_equals_vmap() -> None:
    both = [meta_gradient(network(), R2D2(init_ridge=0.1), episodes(3), vectorize=v) for v in VECTORIZE]
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=1e-9, atol=1e-11)


def test_a_feature_of_ones_is_added() -> None:
    torch.testing.assert_close(with_ones(torch.zeros(2, 3)), torch.tensor([[0.0, 0.0, 0.0, 1.0]] * 2))


@pytest.mark.slow
def test_bits_and_the_scalars_move(local_ray: Any, tmp_path: Path) -> None:
    options = {"tasks": "glyphs", "model": "mlp", "model.hidden": [16], "algorithm.init_ridge": 1.0}
    run = require_equal_bits(tmp_path, algorithm="r2d2", **options, **{"outer.weight_decay": 0.1})
    learned = last_params(run)
    assert abs(float(learned[LOG_RIDGE])) > 1e-3
    assert abs(float(learned[LOG_SCALE]) - math.log(10)) > 1e-3
    assert abs(float(learned[SHIFT])) < 1e-6
