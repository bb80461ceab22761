"""The outer optimiser: schedules are pure functions, clipping does what it says, decay spares learned rates."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from raymeta.adaptation.problem import Learned
from raymeta.algorithms.meta_sgd import MetaSGD
from raymeta.engine.driver.outer import OuterOptimizer, OuterOptions


def optimizer(**options: object) -> OuterOptimizer:
    params = {"w": torch.tensor([1.0, -2.0]), "inner_lr/w": torch.tensor([0.1, 0.1])}
    return OuterOptimizer(Learned(params, {}), OuterOptions(**options), MetaSGD().outer_of)  # type: ignore[arg-type]


def gradient(*values: float) -> NDArray[np.float64]:
    return np.array([*values, 0.0, 0.0])


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"schedule": "constant"}, {0: 1.0, 50: 1.0, 100: 1.0}),
        ({"schedule": "linear", "final_lr": 0.0}, {0: 1.0, 25: 0.75, 100: 0.0}),
        ({"schedule": "cosine", "final_lr": 0.2}, {0: 1.0, 50: 0.6, 100: 0.2}),
        ({"schedule": "step", "step_every": 10, "step_factor": 0.5}, {0: 1.0, 9: 1.0, 10: 0.5, 35: 0.125}),
    ],
)
def test_schedules(options: dict[str, object], rates: dict[int, float]) -> None:
    outer = OuterOptions(lr=1.0, **options)  # type: ignore[arg-type]
    for step, rate in rates.items():
        assert outer.lr_at(step, 100) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_last_step_is_one_short_of_the_final_rate(schedule: Any) -> None:
    """As the documents say: the first step has `lr`, and the one after the last would have `final_lr`."""
    outer = OuterOptions(lr=0.5, schedule=schedule, final_lr=0.1)
    rates = [outer.lr_at(step, 100) for step in range(101)]
    assert (rates[0], rates[100]) == pytest.approx((0.5, 0.1))
    assert rates[99] > 0.1
    assert rates == sorted(rates, reverse=True)


def test_sgd_with_reptiles_delta_moves_to_the_adapted_parameters() -> None:
    """Feeding φ − θ to SGD with rate 1 gives θ; with rate ε it gives φ + ε(θ − φ)."""
    theta = torch.tensor([0.5, 0.5])
    for rate in (1.0, 0.25):
        outer = optimizer(optimizer="sgd", lr=1.0)
        phi = outer.params["w"].detach().clone()
        outer.step(gradient(*(phi - theta).tolist()), lr=rate)
        torch.testing.assert_close(outer.params["w"].detach(), phi + rate * (theta - phi))


def test_clipping() -> None:
    for options, expected in (
        ({"clip_norm": 1.0}, (0.6, 0.8)),
        ({"clip_value": 3.5}, (3.0, 3.5)),
        ({}, (3.0, 4.0)),
    ):
        outer = optimizer(optimizer="sgd", lr=1.0, **options)
        norm = outer.step(gradient(3.0, 4.0), lr=1.0)
        assert norm == pytest.approx(5.0), "the norm before clipping is reported"
        moved = torch.tensor([1.0, -2.0]) - outer.params["w"].detach()
        torch.testing.assert_close(moved, torch.tensor(expected))


def test_clipping_is_the_same_for_negative_elements() -> None:
    for options in ({"clip_norm": 1.0}, {"clip_value": 3.5}, {}):
        moved = []
        for sign in (1.0, -1.0):
            outer = optimizer(optimizer="sgd", lr=1.0, **options)
            outer.step(gradient(3.0 * sign, 4.0 * sign), lr=1.0)
            moved.append(sign * (outer.params["w"].detach() - torch.tensor([1.0, -2.0])))
        torch.testing.assert_close(moved[0], moved[1])


def test_a_short_gradient_is_not_scaled_up() -> None:
    outer = optimizer(optimizer="sgd", lr=1.0, clip_norm=10.0)
    outer.step(gradient(3.0, 4.0), lr=1.0)
    torch.testing.assert_close(outer.params["w"].detach(), torch.tensor([-2.0, -6.0]))


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_weight_decay_spares_learned_rates(kind: str) -> None:
    outer = optimizer(optimizer=kind, lr=0.1, weight_decay=0.5)
    outer.step(gradient(0.0, 0.0), lr=0.1)
    assert (outer.params["w"].detach().abs() < torch.tensor([1.0, 2.0])).all()
    assert torch.equal(outer.params["inner_lr/w"].detach(), torch.tensor([0.1, 0.1]))


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_restored_state_goes_on_with_the_same_bits(kind: str) -> None:
    options = {"optimizer": kind, "lr": 0.1} | ({"momentum": 0.9} if kind == "sgd" else {})
    through, stopped = optimizer(**options), optimizer(**options)
    for outer in (through, stopped):
        outer.step(gradient(3.0, 4.0), lr=0.1)
    resumed = optimizer(**options)
    resumed.load(stopped.learned, stopped.state_tensors())
    for outer in (through, resumed):
        outer.step(gradient(-1.0, 2.0), lr=0.05)
    assert torch.equal(through.params["w"], resumed.params["w"])


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_one_flat_vector_steps_like_tensors_one_by_one(kind: str) -> None:
    """Bit for bit what torch's optimiser does with the tensors themselves, wherever rates lie among them."""
    torch.manual_seed(0)
    start = {"inner_lr/b": torch.rand(()), "a": torch.randn(3, 5), "inner_lr/a": torch.rand(3, 5), "b": torch.randn(())}
    options = OuterOptions(optimizer=kind, weight_decay=0.1, momentum=0.9)  # type: ignore[arg-type]
    outer = OuterOptimizer(Learned(start, {}), options, MetaSGD().outer_of)
    apart = {name: value.clone().requires_grad_() for name, value in start.items()}
    kinds = {
        "sgd": partial(torch.optim.SGD, momentum=0.9),
        "adam": partial(torch.optim.Adam, fused=True),
        "adamw": partial(torch.optim.AdamW, fused=True),
    }
    groups = [{"params": [p], "weight_decay": 0.1 * ("inner_lr" not in name)} for name, p in apart.items()]
    reference = kinds[kind](groups, lr=0.01)
    for _ in range(3):
        flat = torch.randn(32, dtype=torch.float64)
        outer.step(flat.numpy(), lr=0.01)
        for (name, p), part in zip(apart.items(), flat.split([1, 15, 15, 1]), strict=True):
            p.grad = part.to(p.dtype).reshape(start[name].shape)
        reference.step()
    for name, p in apart.items():
        assert torch.equal(p.detach(), outer.params[name])
    names = {f"{name}|{key}" for name, p in apart.items() for key in reference.state[p]}
    assert set(outer.state_tensors()) == names
    for name, p in apart.items():
        for key, value in reference.state[p].items():
            assert torch.equal(outer.state_tensors()[f"{name}|{key}"], value)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("size", [1, 31, 1761, 100_003])
def test_no_number_of_threads_changes_a_step(kind: str, size: int) -> None:
    """The driver of a cluster has more of them than one process."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, generator=generator)
    steps = [torch.randn(size, generator=generator, dtype=torch.float64).numpy() for _ in range(3)]
    before, learned = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        outer = OuterOptimizer(Learned({"w": start}, {}), OuterOptions(optimizer=kind, weight_decay=0.1, momentum=0.9))  # type: ignore[arg-type]
        for flat in steps:
            outer.step(flat, lr=0.01)
        learned.append(outer.params["w"])
    torch.set_num_threads(before)
    assert torch.equal(learned[0], learned[1])
    assert torch.equal(learned[0], learned[2])
