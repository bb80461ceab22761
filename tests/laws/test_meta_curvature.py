"""Meta-Curvature: identities are MAML, matrices are one Kronecker product, and both are learned through the steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from raymeta import MAML, Episode, Examples, MetaCurvature, meta_gradient
from raymeta.adaptation.problem import Vectorize
from raymeta.algorithms.meta_curvature import CURVATURE, curved
from raymeta.tree import Params

VECTORIZE: tuple[Vectorize, ...] = ("vmap", "loop")
WAY = 3
RATE = 0.4


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episodes(count: int = 2) -> list[Episode]:
    y = torch.arange(WAY).repeat_interleave(2)
    return [Episode(*(Examples(draw(6, 2, 5, 5, seed=20 * t + s), y) for s in (0, 1))) for t in range(count)]


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, WAY)).double()


def matrices() -> Params:
    """Away from the identity, and not symmetric."""
    shapes = {"0.weight/out": 4, "0.weight/in": 2, "0.weight/filter": 9, "0.bias/out": 4}
    shapes |= {"3.weight/out": WAY, "3.weight/in": 16, "3.bias/out": WAY}
    return {
        CURVATURE + name: torch.eye(size).double() + 0.2 * draw(size, size, seed=i)
        for i, (name, size) in enumerate(shapes.items())
    }


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_it_begins_as_maml(vectorize: Vectorize) -> None:
    options = {"inner_lr": RATE, "inner_steps": 3}
    expected = meta_gradient(network(), MAML(**options), episodes(), vectorize=vectorize)  # type: ignore[arg-type]
    found = meta_gradient(network(), MetaCurvature(**options), episodes(), vectorize=vectorize)  # type: ignore[arg-type]
    assert found.keys() == expected.keys() | matrices().keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)


def test_three_matrices_are_their_kronecker_product() -> None:
    values, gradient = matrices(), draw(4, 2, 3, 3, seed=9)
    out, inside, places = (values[f"{CURVATURE}0.weight/{mode}"] for mode in ("out", "in", "filter"))
    expected = torch.kron(torch.kron(out, inside), places) @ gradient.flatten()
    found = curved(values, {"0.weight": gradient})["0.weight"]
    torch.testing.assert_close(found, expected.view(4, 2, 3, 3), rtol=1e-12, atol=1e-13)


def test_multiples_of_identities_are_rates() -> None:
    """Of a weight with three modes they multiply; the head's rate is then 0."""
    scaled = {
        name: torch.eye(len(m)).double() * (0.0 if name.startswith(CURVATURE + "3.") else 0.5)
        for name, m in matrices().items()
    }
    scaled[f"{CURVATURE}0.bias/out"] *= 0.25
    maml = MAML(inner_lr=RATE / 8, inner_steps=3, adapt_only=("0.*",))
    expected = meta_gradient(network(), maml, episodes())
    found = meta_gradient(network(), MetaCurvature(inner_lr=RATE, inner_steps=3), episodes(), params=scaled)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-13)


def by_hand(params: Params, episode: Episode) -> Tensor:
    """Two steps by Kronecker products: nothing of raymeta is used."""

    def loss(theta: Params, side: Examples) -> Tensor:
        return F.cross_entropy(functional_call(network(), theta, (side.x,)), side.y)

    theta = {name: value for name, value in params.items() if not name.startswith(CURVATURE)}
    for _ in range(2):
        gradient = torch.autograd.grad(loss(theta, episode.support), list(theta.values()), create_graph=True)
        after = {}
        for (name, value), g in zip(theta.items(), gradient, strict=True):
            whole = torch.ones(1, 1, dtype=torch.float64)
            for mode in ("out", "in", "filter"):
                whole = torch.kron(whole, params.get(f"{CURVATURE}{name}/{mode}", torch.ones(1, 1).double()))
            after[name] = value - RATE * (whole @ g.flatten()).view(g.shape)
        theta = after
    return loss(theta, episode.query)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["whole", "checkpointed"])
@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_weights_and_matrices_have_the_gradient_of_the_plain_loop(vectorize: Vectorize, checkpointed: bool) -> None:
    algorithm = MetaCurvature(inner_lr=RATE, inner_steps=2)
    found = meta_gradient(
        network(), algorithm, episodes(), params=matrices(), vectorize=vectorize, checkpoint_inner_steps=checkpointed
    )
    values = {n: p.detach() for n, p in network().named_parameters()} | matrices()
    params = {name: value.requires_grad_() for name, value in values.items()}
    loss = torch.stack([by_hand(params, episode) for episode in episodes()]).mean()
    gradient = torch.autograd.grad(loss, list(params.values()))
    assert found.keys() == params.keys()
    for name, expected in zip(params, gradient, strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, msg=name)
        assert expected.abs().max() > 1e-6, name
