"""Inner steps beyond plain gradient descent, and heads with more outputs than a test task has classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import raymeta
from raymeta import ANIL, MAML, Episode, Examples, MetaSGD, meta_gradient
from raymeta.algorithms.base import DescentAlgorithm

RULES: dict[str, dict[str, Any]] = {
    "momentum": {"inner_momentum": 0.9},
    "adam": {"inner_optimizer": "adam"},
    "clipped": {"inner_clip_norm": 0.05},
    "clipped adam": {"inner_optimizer": "adam", "inner_clip_norm": 0.05},
}
LR, STEPS = 0.1, 3


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def episodes(num_tasks: int = 3) -> list[Episode]:
    generator = torch.Generator().manual_seed(0)

    def side() -> Examples:
        return Examples(torch.randn(6, 5, generator=generator), torch.arange(3).repeat(2))

    return [Episode(side(), side()) for _ in range(num_tasks)]


def stepped(theta: list[Tensor], gradient: list[Tensor], memory: dict[str, Any], rule: dict[str, Any]) -> list[Tensor]:
    """The rules as their papers write them, in lists."""
    if (largest := rule.get("inner_clip_norm")) is not None:
        norm = torch.cat([g.flatten() for g in gradient]).norm()
        gradient = [g * torch.clamp(largest / norm, max=1) for g in gradient]
    if rule.get("inner_optimizer") == "adam":
        memory["t"] = memory.get("t", 0) + 1
        memory["m"] = [0.9 * m + 0.1 * g for m, g in zip(memory.get("m", [0] * 4), gradient, strict=False)]
        memory["v"] = [0.999 * v + 0.001 * g * g for v, g in zip(memory.get("v", [0] * 4), gradient, strict=False)]
        m_hat = [m / (1 - 0.9 ** memory["t"]) for m in memory["m"]]
        v_hat = [v / (1 - 0.999 ** memory["t"]) for v in memory["v"]]
        gradient = [m / ((v + 1e-8).sqrt() + 1e-8) for m, v in zip(m_hat, v_hat, strict=True)]
    if "inner_momentum" in rule:
        memory["v"] = [0.9 * v + g for v, g in zip(memory.get("v", [0] * 4), gradient, strict=False)]
        gradient = memory["v"]
    return [t - LR * g for t, g in zip(theta, gradient, strict=True)]


def by_hand(rule: dict[str, Any], first_order: bool) -> dict[str, Tensor]:
    model = net()
    names = [name for name, _ in model.named_parameters()]
    params = [p.detach().requires_grad_() for p in model.parameters()]
    losses = []
    for support, query in episodes():
        theta, memory = params, dict[str, Any]()
        for _ in range(STEPS):
            outputs = functional_call(model, dict(zip(names, theta, strict=True)), (support.x,))
            gradient = torch.autograd.grad(F.cross_entropy(outputs, support.y), theta, create_graph=True)
            gradient = [g.detach() for g in gradient] if first_order else list(gradient)
            theta = stepped(theta, gradient, memory, rule)
        outputs = functional_call(model, dict(zip(names, theta, strict=True)), (query.x,))
        losses.append(F.cross_entropy(outputs, query.y))
    return dict(zip(names, torch.autograd.grad(torch.stack(losses).mean(), params), strict=True))


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second-order", "first-order"])
@pytest.mark.parametrize("rule", RULES)
def test_rules_are_those_of_their_papers_differentiated(rule: str, first_order: bool, vectorize: Any) -> None:
    algorithm = MAML(inner_lr=LR, inner_steps=STEPS, first_order=first_order, **RULES[rule])
    found = meta_gradient(net(), algorithm, episodes(), vectorize=vectorize)
    for name, expected in by_hand(RULES[rule], first_order).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", [MAML, ANIL, MetaSGD])
def test_steps_that_are_computed_again_keep_the_bits(method: type[DescentAlgorithm], rule: str, vectorize: Any) -> None:
    algorithm = method(inner_steps=STEPS, **RULES[rule])
    whole, parts = (
        meta_gradient(net(), algorithm, episodes(), vectorize=vectorize, checkpoint_inner_steps=again)
        for again in (False, True)
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_anil_with_a_rule_is_maml_that_adapts_the_head() -> None:
    options: dict[str, Any] = {"inner_lr": LR, "inner_steps": STEPS, "inner_optimizer": "adam"}
    anil = meta_gradient(net(), ANIL(**options), episodes())
    maml = meta_gradient(net(), MAML(adapt_only=("2.*",), **options), episodes())
    for name, value in maml.items():
        torch.testing.assert_close(anil[name], value, rtol=1e-9, atol=1e-12)


def test_a_gradient_of_zeros_has_finite_derivatives() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.zero_()  # so the inner gradient of all the first layer's weights is zero
        model[2].weight.zero_()
    for rule in RULES.values():
        found = meta_gradient(model, MAML(inner_lr=LR, inner_steps=STEPS, **rule), episodes())
        assert all(bool(value.isfinite().all()) for value in found.values())


def test_momentum_beside_adam_is_refused() -> None:
    with pytest.raises(ValidationError, match="leave it out with adam"):
        MAML(inner_optimizer="adam", inner_momentum=0.5)


@pytest.mark.parametrize("method", [MAML(), ANIL(), raymeta.Reptile(inner_steps=2, test_inner_steps=2)])
def test_a_head_of_the_training_way_serves_test_tasks_of_fewer_classes(method: Any, tmp_path: Path) -> None:
    """Its surplus outputs count for nothing at test: their weights may be anything."""
    options: dict[str, Any] = {"tasks.train_way": 6, "tasks.way": 3, "model.width": 8}
    sizes = {"steps": 2, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 8}
    run = raymeta.meta_train(algorithm=method, output=str(tmp_path), **sizes, **options)
    outputs = raymeta.load_run(run.path).model()(torch.zeros(2, 1, 28, 28))
    assert outputs.shape == (2, 6)
    assert run.summary["headline"]["value"] > 0
    for episode in raymeta.load_run(run.path).episodes():
        assert len(episode["probabilities"][0][0]) == 3


def test_a_test_way_above_the_training_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(raymeta.errors.ConfigError, match=r"train_way 3 is below tasks\.way 5"):
        raymeta.meta_train(output=str(tmp_path), **{"tasks.train_way": 3, "tasks.way": 5})  # type: ignore[arg-type]
