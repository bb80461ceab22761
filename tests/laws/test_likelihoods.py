"""Distributions over a target: their mass is one, their points are means, their likelihoods those of torch."""

from __future__ import annotations

import math

import pytest
import torch
from draws import draw
from torch import Tensor
from torch.distributions import HalfNormal, Normal

from raymeta.adaptation.likelihoods import Bars, Normals, bars_of

BARS = Bars(torch.tensor([-3.0, -1.0, -0.25, 0.5, 2.0], dtype=torch.float64))
GRID = torch.linspace(-60, 60, 240_001, dtype=torch.float64)


@pytest.mark.parametrize("logits", [draw(1, 4, seed=0), torch.tensor([[-9.0, 1.0, 0.0, -9.0]]).double()])
def test_bars_are_a_density_with_that_mean_and_deviation(logits: Tensor) -> None:
    density = BARS.log_density(logits.expand(len(GRID), -1), GRID[:, None]).exp()
    assert float(torch.trapezoid(density, GRID)) == pytest.approx(1, abs=1e-3)
    assert float(torch.trapezoid(density * GRID, GRID)) == pytest.approx(float(BARS.point(logits)), abs=1e-3)
    second = float(torch.trapezoid(density * (GRID - BARS.point(logits)[0]).square(), GRID))
    assert float(BARS.deviation(logits)) == pytest.approx(math.sqrt(second), abs=1e-3)


def test_density_within_bars_by_hand() -> None:
    logits = draw(1, 4, seed=1)
    log_mass = logits.log_softmax(1)[0]
    tails = [HalfNormal(width / Normal(0.0, 1.0).icdf(torch.tensor(0.75)).item()) for width in (2.0, 1.5)]
    expected = {
        -2.0: log_mass[0] + tails[0].log_prob(torch.tensor(1.0)),
        -1.0: log_mass[1] - math.log(0.75),
        0.4: log_mass[2] - math.log(0.75),
        0.5: log_mass[3] + tails[1].log_prob(torch.tensor(0.0)),
        9.0: log_mass[3] + tails[1].log_prob(torch.tensor(8.5)),
    }
    for y, value in expected.items():
        assert float(BARS.log_density(logits, torch.tensor([[y]]))) == pytest.approx(float(value), rel=1e-6)
    y = torch.tensor([[value] for value in expected])
    found = BARS.nll(logits.expand(5, -1), y)
    assert float(found) == pytest.approx(-float(torch.stack(list(expected.values())).mean()), rel=1e-6)


def test_bars_of_values_have_equal_mass() -> None:
    values = draw(10_000, seed=2)
    bars = bars_of(values, 8)
    places = torch.bucketize(values, bars.borders[1:-1])
    assert torch.bincount(places).tolist() == [1250] * 8
    assert (bars.borders[0], bars.borders[-1]) == (values.min(), values.max())


def test_normals_by_hand() -> None:
    outputs, y = draw(5, 4, seed=3), draw(5, 2, seed=4)
    std = 0.1 + 0.9 * torch.log1p(outputs[:, 2:].exp())
    expected = Normal(outputs[:, :2], std).log_prob(y).sum(1)
    torch.testing.assert_close(Normals().log_likelihood(outputs, y), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(Normals().nll(outputs, y), -expected.mean(), rtol=1e-12, atol=1e-12)
    assert torch.equal(Normals().point(outputs), outputs[:, :2])
    assert float(Normals(0.5).parameters(torch.tensor([[0.0, -50.0]]))[1]) == pytest.approx(0.5)


def test_a_mixture_is_the_mean_of_densities() -> None:
    outputs, y = draw(5, 4, 3, seed=5), draw(5, 2, seed=6)
    each = torch.stack([Normals().log_likelihood(outputs[..., one], y).exp() for one in range(3)])
    torch.testing.assert_close(Normals().log_likelihood(outputs, y).exp(), each.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(Normals().point(outputs), outputs[:, :2].mean(-1))
    same = outputs[..., :1].expand(-1, -1, 7)
    torch.testing.assert_close(Normals().log_likelihood(same, y), Normals().log_likelihood(outputs[..., 0], y))


def test_the_deviation_of_normals_and_of_a_mixture_is_that_of_their_density() -> None:
    normals, outputs = Normals(0.2), draw(1, 2, 3, seed=2)
    density = normals.log_likelihood(outputs.expand(len(GRID), -1, -1), GRID[:, None]).exp()
    second = float(torch.trapezoid(density * (GRID - normals.point(outputs)[0]).square(), GRID))
    assert float(normals.deviation(outputs)) == pytest.approx(math.sqrt(second), abs=1e-6)
    assert torch.equal(normals.deviation(outputs[..., 0]), normals.parameters(outputs[..., 0])[1])
