"""The network for texts: exact at second order, the same side by side and one by one, blind to what the mask hides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raymeta import MAML, Episode, Examples, meta_gradient
from raymeta.errors import ConfigError
from raymeta.models import TextModel

LENGTH, WORDS, WAY = 4, 7, 3
SHAPES = {"tokens": (LENGTH,), "mask": (LENGTH,)}
ENCODERS: list[tuple[Any, int]] = [("mean", 0), ("mean", 1), ("transformer", 1), ("lstm", 2)]


def network(encoder: Any, depth: int, outputs: int | None = WAY) -> nn.Module:
    torch.manual_seed(0)
    spec = TextModel(encoder=encoder, depth=depth, width=4, heads=2, vocabulary=WORDS)
    return spec.build(SHAPES, outputs).double()


def inputs(n: int, seed: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    mask = torch.rand(n, LENGTH, generator=draws) < 0.6
    return {"tokens": torch.randint(1, WORDS, (n, LENGTH), generator=draws) * mask, "mask": mask}


def episode(seed: int) -> Episode:
    y = torch.arange(WAY).repeat(2)
    return Episode(Examples(inputs(6, seed), y), Examples(inputs(6, seed + 100), y))


@pytest.mark.parametrize(("encoder", "depth"), ENCODERS)
def test_the_meta_gradient_is_that_of_finite_differences(encoder: Any, depth: int) -> None:
    net, one = network(encoder, depth), episode(0)

    def loss(values: dict[str, Tensor]) -> float:
        for _ in range(2):
            leaves = {name: value.requires_grad_() for name, value in values.items()}
            out = torch.func.functional_call(net, leaves, (), dict(one.support.x))
            grads = torch.autograd.grad(nn.functional.cross_entropy(out, one.support.y), list(leaves.values()))
            values = {n: (v - 0.3 * g).detach() for (n, v), g in zip(leaves.items(), grads, strict=True)}
        out = torch.func.functional_call(net, values, (), dict(one.query.x))
        return float(nn.functional.cross_entropy(out, one.query.y))

    params = {name: value.detach() for name, value in net.named_parameters()}
    torch.manual_seed(1)
    direction = {name: torch.randn_like(value) for name, value in params.items()}
    eps = 1e-5
    up, down = (loss({n: v + sign * eps * direction[n] for n, v in params.items()}) for sign in (1, -1))
    found = meta_gradient(net, MAML(inner_steps=2, inner_lr=0.3), [one])
    slope = sum(float((found[name] * direction[name]).sum()) for name in params)
    assert slope == pytest.approx((up - down) / (2 * eps), rel=1e-6)


@pytest.mark.parametrize(("encoder", "depth"), ENCODERS)
def test_loop_and_vmap_agree(encoder: Any, depth: int) -> None:
    tasks = [episode(seed) for seed in range(3)]
    net = network(encoder, depth)
    loop, side = (meta_gradient(net, MAML(inner_steps=2), tasks, vectorize=way) for way in ("loop", "vmap"))
    for name, value in loop.items():
        assert torch.allclose(value, side[name], rtol=1e-9, atol=1e-13), name


@pytest.mark.parametrize(("encoder", "depth"), ENCODERS)
def test_what_the_mask_hides_changes_nothing(encoder: Any, depth: int) -> None:
    net, x = network(encoder, depth, None), inputs(8, 3)
    other = torch.where(x["mask"], x["tokens"], WORDS - 1)
    assert not torch.equal(other, x["tokens"])
    assert torch.equal(net(**x), net(tokens=other, mask=x["mask"]))


@pytest.mark.parametrize(("encoder", "depth"), ENCODERS)
def test_a_text_without_words_has_finite_features_and_gradients(encoder: Any, depth: int) -> None:
    net, x = network(encoder, depth, None), inputs(2, 3)
    x["mask"] = torch.zeros_like(x["mask"])
    out = net(**x)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "depth"), ENCODERS)
def test_it_compiles(encoder: Any, depth: int) -> None:
    net, x = network(encoder, depth), inputs(4, 1)
    assert torch.allclose(torch.compile(net, fullgraph=True)(**x), net(**x), rtol=1e-9)


def test_what_it_cannot_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes tokens and a mask"):
        TextModel(vocabulary=9).build((3,), 2)
    with pytest.raises(ConfigError, match=r"model\.vocabulary is not given"):
        TextModel().build(SHAPES, 2)
    with pytest.raises(ValueError, match="does not divide into 3 heads"):
        TextModel(encoder="transformer", width=8, heads=3)
