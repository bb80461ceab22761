"""Both routes to a derivative are the same mathematics, and norms know how many are being taken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call

from raymeta.autodiff.derivatives import gradient_and_value, order, plain
from raymeta.models.layers.norm import BatchNorm
from raymeta.tree import Params


def test_a_gradient_through_a_step_has_its_closed_form() -> None:
    """f(θ) = Σθ³/3 and one step θ' = θ − aθ²; d f(θ')/dθ = θ'²(1 − 2aθ)."""
    theta = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)

    def inner(p: Params) -> Tensor:
        assert plain() == (not torch._C._functorch.get_interpreter_stack())  # type: ignore[attr-defined]
        return (p["w"] ** 3).sum() / 3

    def outer(p: Params) -> tuple[Tensor, Tensor]:
        gradient, _ = gradient_and_value(inner, p)
        return inner({"w": p["w"] - 0.1 * gradient["w"]}), torch.tensor(order())

    moved = theta - 0.1 * theta**2
    expected = moved**2 * (1 - 0.2 * theta)
    gradient, (value, depth) = gradient_and_value(outer, {"w": theta}, has_aux=True)
    assert torch.allclose(gradient["w"], expected, rtol=1e-14)
    assert int(depth) == 1
    assert order() == 0
    assert not value.requires_grad
    assert not gradient["w"].requires_grad
    mapped = torch.vmap(lambda w: gradient_and_value(outer, {"w": w}, has_aux=True)[0]["w"])(theta[None])
    assert torch.allclose(mapped[0], expected, rtol=1e-14)


def test_nothing_is_recorded_without_a_gradient_around() -> None:
    w = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        gradient, value = gradient_and_value(lambda p: p["w"].square().sum(), {"w": w})
    assert not gradient["w"].requires_grad
    assert not value.requires_grad
    assert torch.equal(gradient["w"], torch.full((2,), 2.0))


def test_a_parameter_that_is_not_used_has_a_gradient_of_zero() -> None:
    gradient, _ = gradient_and_value(lambda p: p["a"].square(), {"a": torch.ones(()), "b": torch.ones(3)})
    assert torch.equal(gradient["b"], torch.zeros(3))


def test_third_derivatives_of_batch_norm_are_exact() -> None:
    torch.manual_seed(0)
    norm = BatchNorm(3).double()
    x, y = torch.randn(5, 3, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)
    params: Params = {"x": x, "weight": torch.rand(3, dtype=torch.float64), "bias": torch.rand(3, dtype=torch.float64)}

    def loss(p: Params) -> Tensor:
        own = {name: p[name] for name in ("weight", "bias")}
        result: Tensor = (functional_call(norm, own, (p["x"],)) * y).pow(3).sum()
        return result

    def through_a_step(function: Callable[[Params], Tensor]) -> Callable[[Params], Tensor]:
        def stepped(p: Params) -> Tensor:
            gradient, _ = gradient_and_value(function, p)
            return function({name: value - 0.01 * gradient[name] for name, value in p.items()})

        return stepped

    twice = through_a_step(through_a_step(loss))
    gradient, _ = gradient_and_value(twice, params)
    direction = {name: torch.randn_like(value) for name, value in params.items()}
    h = 1e-5
    ahead, behind = (twice({n: v + sign * h * direction[n] for n, v in params.items()}) for sign in (1, -1))
    expected = float((ahead - behind) / (2 * h))
    assert abs(sum(float((gradient[n] * direction[n]).sum()) for n in params) - expected) < 1e-6 * abs(expected)
