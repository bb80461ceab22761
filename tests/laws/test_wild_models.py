"""Every network either gets the derivatives of plain autograd, on every path, or is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch
import wild_models
from torch import Tensor
from wild_models import (
    DOCUMENT,
    MODELS,
    Wild,
    by_autograd,
    episodes,
    gradient_of,
    learnable,
    made,
    outer_loss,
    refusal,
    table,
)

from raymeta import RaymetaError

PATHS = ("vmap", "loop")
EXACT = [(wild, path) for wild in MODELS for path in PATHS if getattr(wild, path) == "exact"]
REFUSED = [(wild, path) for wild in MODELS for path in PATHS if getattr(wild, path) == "refused"]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def names(pairs: list[tuple[Wild, str]]) -> list[str]:
    return [f"{wild.name}-{path}" for wild, path in pairs]


def directional(gradient: dict[str, Tensor], direction: dict[str, Tensor]) -> float:
    return float(sum((g.conj() * direction[name]).real.sum() for name, g in gradient.items()))


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize(("wild", "path"), EXACT, ids=names(EXACT))
def test_gradients_are_the_right_ones(wild: Wild, path: str, num_steps: int) -> None:
    """Differences of values along random directions take only first derivatives of the model as it was handed over."""
    if wild.reference == "none":
        pytest.skip("random, or too coarse to compare")
    gradient = gradient_of(wild, path, num_steps)
    if wild.reference == "autograd":
        for name, value in by_autograd(wild, num_steps).items():
            torch.testing.assert_close(gradient[name], value, rtol=1e-9, atol=1e-11)
        return
    params, eps = learnable(made(wild)), 1e-6
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        direction = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in params.items()}
        there, back = (
            outer_loss(wild, {n: p + sign * eps * direction[n] for n, p in params.items()}, num_steps)
            for sign in (1, -1)
        )
        assert directional(gradient, direction) == pytest.approx((there - back) / (2 * eps), rel=1e-5, abs=1e-8)


def test_torch_itself_is_wrong_about_weight_norm() -> None:
    """The trap that makes the layer worth replacing: where this fails, torch's own may be used again."""
    (wild,) = (wild for wild in MODELS if wild.name == "weight_norm")
    ours, theirs = gradient_of(wild, "loop"), by_autograd(wild, 2)
    error = sum(float((ours[n] - theirs[n]).square().sum()) for n in ours) ** 0.5
    assert error > 1e-2 * sum(float(g.square().sum()) for g in ours.values()) ** 0.5


@pytest.mark.parametrize(("wild", "path"), REFUSED, ids=names(REFUSED))
def test_what_cannot_be_right_is_refused_with_a_way_out(wild: Wild, path: str) -> None:
    text = refusal(wild, path)
    assert text is not None
    assert ":" in text, "a cause and then what to do"


@pytest.mark.parametrize(("wild", "path"), EXACT, ids=names(EXACT))
def test_nothing_remains_of_a_task(wild: Wild, path: str) -> None:
    """The same bits again, and the same mean in another order of the tasks."""
    tasks = episodes(wild.input)
    first, again = gradient_of(wild, path), gradient_of(wild, path)
    assert all(torch.equal(first[name], again[name]) for name in first)
    if wild.reference != "none":
        reverse = gradient_of(wild, path, tasks=tasks[::-1])
        for name, value in first.items():
            torch.testing.assert_close(reverse[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("wild", "path"), EXACT, ids=names(EXACT))
def test_checkpointed_steps_keep_the_bits(wild: Wild, path: str) -> None:
    whole, parts = gradient_of(wild, path), gradient_of(wild, path, checkpoint_inner_steps=True)
    for name, value in whole.items():
        assert torch.equal(parts[name], value), name


@pytest.mark.parametrize("wild", MODELS, ids=[wild.name for wild in MODELS])
def test_a_model_that_is_handed_over_stays_as_it_is(wild: Wild) -> None:
    torch.manual_seed(0)
    model = wild.make()
    before = (
        {name: value.clone() for name, value in model.state_dict().items()}
        if wild.name != "a lazy layer without a shape"
        else {}
    )
    modes = [module.training for module in model.modules()]
    with suppress(RaymetaError):
        wild_models.meta_gradient(model, wild_models.MAML(inner_lr=0.1), episodes(wild.input), vectorize="loop")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_the_table_in_the_documents_is_that_of_the_list() -> None:
    assert DOCUMENT.read_text().partition("<!-- table -->\n")[2] == table()
