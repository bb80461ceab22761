"""Normalisation: equal to torch's layers, exact at second order in every order of vmap and grad."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from raymeta.models.layers.convert import convert
from raymeta.models.layers.norm import BatchNorm, collect_statistics, reference_rows, running_statistics

FUSED: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm1d(6, track_running_stats=False),
    "instance": lambda: nn.InstanceNorm1d(6, affine=True),
    "layer": lambda: nn.LayerNorm(5),
    "group": lambda: nn.GroupNorm(2, 6),
}
TASKS, ROWS = 3, 4


def network(kind: str) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv1d(2, 6, 3), FUSED[kind](), nn.Tanh(), nn.Flatten(), nn.Linear(30, 1)).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(TASKS, 2, ROWS, 2, 7, generator=generator, dtype=torch.float64)
    return x[:, 0], x[:, 1]


def adapted_loss(model: nn.Module, params: dict[str, Tensor], support: Tensor, query: Tensor) -> Tensor:
    """Query loss after one second-order inner step."""

    def loss(theta: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, theta, (x,)).square().mean()

    gradient = grad(loss)(params, support)
    return loss({name: value - 0.3 * gradient[name] for name, value in params.items()}, query)


def meta_gradients(model: nn.Module) -> dict[str, Tensor]:
    """The mean meta-gradient as one vector, by every route."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    support, query = data()

    def flat(tree: dict[str, Tensor]) -> Tensor:
        return torch.cat([value.reshape(-1) for value in tree.values()])

    def one(params: dict[str, Tensor], s: Tensor, q: Tensor) -> Tensor:
        return adapted_loss(model, params, s, q)

    loops = [flat(grad(one)(params, support[t], query[t])) for t in range(TASKS)]
    inside = vmap(grad(one), in_dims=(None, 0, 0))(params, support, query)
    outside = grad(lambda p: vmap(one, in_dims=(None, 0, 0))(p, support, query).mean())(params)
    return {
        "loop": torch.stack(loops).mean(0),
        "vmap(grad)": flat({name: value.mean(0) for name, value in inside.items()}),
        "grad(vmap)": flat(outside),
    }


def finite_difference(model: nn.Module) -> tuple[Tensor, float]:
    params = {name: p.detach() for name, p in model.named_parameters()}
    support, query = data()
    generator = torch.Generator().manual_seed(3)
    direction = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in params.items()}

    def mean_loss(h: float) -> float:
        moved = {name: value + h * direction[name] for name, value in params.items()}
        return sum(float(adapted_loss(model, moved, support[t], query[t])) for t in range(TASKS)) / TASKS

    flat = torch.cat([value.reshape(-1) for value in direction.values()])
    return flat, (mean_loss(1e-5) - mean_loss(-1e-5)) / 2e-5


@pytest.mark.parametrize("kind", FUSED)
def test_every_route_equals_finite_differences(kind: str) -> None:
    model = convert(network(kind))
    direction, expected = finite_difference(model)
    routes = meta_gradients(model)
    for gradient in routes.values():
        assert float(gradient @ direction) == pytest.approx(expected, rel=3e-6)
        torch.testing.assert_close(gradient, routes["loop"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["batch", "instance", "layer"])
def test_the_trap_of_fused_norms_is_still_there(kind: str) -> None:
    """If this fails, torch has repaired grad(vmap(...)) through its fused norms: rejoice, and simplify `norm.py`."""
    routes = meta_gradients(network(kind))
    direction, expected = finite_difference(network(kind))
    assert float(routes["vmap(grad)"] @ direction) == pytest.approx(expected, rel=3e-6)
    error = (routes["grad(vmap)"] - routes["loop"]).norm() / routes["loop"].norm()
    assert error > 1e-3


@pytest.mark.parametrize("kind", FUSED)
def test_converted_layers_equal_torchs(kind: str) -> None:
    model = network(kind)
    ours = convert(model)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in model.named_parameters()]
    x = data()[0][0]
    torch.testing.assert_close(ours(x), model(x), rtol=1e-12, atol=1e-13)
    assert isinstance(model[1], type(FUSED[kind]())), "the original is left alone"


def test_an_eval_mode_norm_uses_its_running_statistics() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).double()
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model(x)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ours = convert(model)
    torch.testing.assert_close(ours(x), model(x), rtol=1e-12, atol=1e-13)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_reference_rows_normalise_the_rest() -> None:
    """In a deep network, support rows come out as in a pass of their own, and queries do not see each other."""
    model = convert(
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6), nn.BatchNorm1d(6)).double()
    )
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with reference_rows(5):
        joint, fewer = model(x), model(x[:7])
    torch.testing.assert_close(joint[:5], model(x[:5]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(joint[:7], fewer, rtol=1e-12, atol=1e-13)
    assert (model(x) - joint).abs().max() > 1e-3


def test_running_statistics_are_read_and_never_written() -> None:
    model = convert(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).double())
    norm = model[1]  # type: ignore[index]
    assert isinstance(norm, BatchNorm)
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    params = {**dict(model.named_parameters()), "1.running_mean": torch.full((6,), 0.5), "1.running_var": torch.ones(6)}
    with running_statistics():
        out = functional_call(model, {n: v.detach().double() for n, v in params.items()}, (x,))
    z = model[0](x)  # type: ignore[index]
    torch.testing.assert_close(out, (z - 0.5) / (1 + norm.eps) ** 0.5, rtol=1e-10, atol=1e-12)
    with collect_statistics() as seen:
        model(x)
    torch.testing.assert_close(seen["1.running_mean"], z.mean(0).detach())
    torch.testing.assert_close(seen["1.running_var"], z.var(0).detach())
    assert torch.equal(norm.running_mean, torch.zeros(6).double())
