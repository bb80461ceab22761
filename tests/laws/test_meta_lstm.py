"""Meta-learner LSTM: with constant gates it is FOMAML; with all of its own, a plain loop of autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from raymeta import MAML, Beside, Episode, Examples, Learned, MetaLSTM, Phase, Problem, meta_gradient
from raymeta.adaptation.problem import Vectorize
from raymeta.errors import ConfigError
from raymeta.models.layers.coordinate_lstm import GatedUpdate
from raymeta.tasks.episodes import stack_episodes
from raymeta.tree import Params

VECTORIZE: tuple[Vectorize, ...] = ("vmap", "loop")
WAY, HIDDEN, STEPS = 3, 4, 3


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episodes(count: int = 2) -> list[Episode]:
    y = torch.arange(WAY).repeat_interleave(2)
    return [Episode(*(Examples(draw(6, 4, seed=20 * t + s), y) for s in (0, 1))) for t in range(count)]


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, WAY)).double()


def made(vectorize: Vectorize) -> tuple[MetaLSTM, Problem, Learned]:
    algorithm = MetaLSTM(inner_steps=STEPS, hidden=HIDDEN)
    problem = Problem(
        Beside(network(), update=GatedUpdate(HIDDEN)).double(), goal="classification", vectorize=vectorize
    )
    params = problem.initial_params()
    other = {n: 0.5 * draw(*p.shape, seed=i) for i, (n, p) in enumerate(params.items()) if n.startswith("update.")}
    return algorithm, problem, Learned(params | other, {})


def gradient_of(algorithm: MetaLSTM, problem: Problem, learned: Learned) -> Params:
    phase = Phase(way=WAY)
    return algorithm.contribution(problem, learned, stack_episodes(episodes()), noise={}, phase=phase).sums


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_with_constant_gates_it_is_first_order_maml(vectorize: Vectorize) -> None:
    """Forget 1, write α: gradient descent, whose slopes are constants."""
    algorithm, problem, learned = made(vectorize)
    for gate, bias in (("forget", 50.0), ("write", math.log(0.3 / 0.7))):
        learned.params[f"update.{gate}.weight"].zero_()
        learned.params[f"update.{gate}.bias"].fill_(bias)
    maml = MAML(inner_lr=0.3, inner_steps=STEPS, first_order=True)
    expected = meta_gradient(network(), maml, episodes())
    found = gradient_of(algorithm, problem, learned)
    for name, value in expected.items():
        torch.testing.assert_close(found[f"body.{name}"] / 2, value, rtol=1e-11, atol=1e-13)


def read(value: Tensor) -> Tensor:
    """The scale of logarithms of Andrychowicz et al. with p = 10, number by number."""
    rows = []
    for v in value.tolist():
        large = abs(v) >= math.exp(-10)
        rows.append([math.log(abs(v)) / 10, math.copysign(1, v)] if large else [-1.0, math.exp(10) * v])
    return torch.tensor(rows, dtype=torch.float64)


def by_hand(params: Params, episode: Episode) -> Tensor:
    """The query loss by the paper's equations: nothing of raymeta is used."""
    own = {n.removeprefix("body."): p for n, p in params.items() if n.startswith("body.")}
    sizes = [p.numel() for p in own.values()]

    def loss(theta: Tensor, side: Examples) -> Tensor:
        pieces = theta.split(sizes)
        values = {n: piece.view(p.shape) for (n, p), piece in zip(own.items(), pieces, strict=True)}
        return F.cross_entropy(functional_call(network(), values, (side.x,)), side.y)

    def gate(name: str, *inputs: Tensor) -> Tensor:
        weight, bias = (params[f"update.{name}.{kind}"] for kind in ("weight", "bias"))
        return torch.sigmoid(torch.cat(inputs, 1) @ weight.T + bias)[:, 0]

    theta = torch.cat([p.flatten() for p in own.values()])
    h = c = torch.zeros(len(theta), HIDDEN, dtype=torch.float64)
    f = i = torch.zeros(len(theta), dtype=torch.float64)
    for _ in range(STEPS):
        at = theta.detach().requires_grad_()
        value = loss(at, episode.support)
        (slope,) = torch.autograd.grad(value, at)
        x = torch.cat([read(slope), read(value.detach()[None]).expand(len(theta), 2), h], 1)
        gates = x @ params["update.cells.gates.0.weight"].T + params["update.cells.gates.0.bias"]
        keep, write, show, new = gates.chunk(4, 1)
        c = keep.sigmoid() * c + write.sigmoid() * new.tanh()
        h = show.sigmoid() * c.tanh()
        f, i = (gate(n, h, theta[:, None], last[:, None]) for n, last in (("forget", f), ("write", i)))
        theta = f * theta - i * slope
    return loss(theta, episode.query)


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_it_is_the_plain_loop(vectorize: Vectorize) -> None:
    algorithm, problem, learned = made(vectorize)
    found = gradient_of(algorithm, problem, learned)
    params = {n: p.clone().requires_grad_() for n, p in learned.params.items()}
    gradient = torch.autograd.grad(torch.stack([by_hand(params, e) for e in episodes()]).sum(), list(params.values()))
    assert found.keys() == params.keys()
    for name, expected in zip(params, gradient, strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, msg=name)
        assert expected.abs().max() > 1e-6, name


def test_a_model_without_it_is_told() -> None:
    with pytest.raises(ConfigError, match="train it with meta_train"):
        meta_gradient(network(), MetaLSTM(), episodes())
