"""What a step of several maps may do with the outer optimiser: update by name, look ahead, assign, remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from raymeta.adaptation.problem import Learned
from raymeta.engine.driver.outer import Moment, OuterOptimizer, OuterOptions
from raymeta.errors import ConfigError

CLASSES = ["Adadelta", "Adafactor", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop"]
RULES = ["sgd", "adam", "adamw", *CLASSES]


def start() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {"a": torch.randn(3, 4, generator=g), "b": torch.randn(5, generator=g), "c": torch.randn((), generator=g)}


def gradients(seed: int, *names: str) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(start()[name].shape, generator=g, dtype=torch.float64) for name in names or "abc"}


def optimizer(rule: str = "adam", outer_of: Any = lambda name: {}, **options: Any) -> OuterOptimizer:
    outer = OuterOptimizer(Learned(start(), {}), OuterOptions(optimizer=rule, lr=0.1, **options), outer_of, apart=True)  # type: ignore[arg-type]
    outer.begin(Moment(0, 10))
    return outer


def assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("rule", CLASSES)
def test_a_class_of_torch_steps_as_it_does_by_itself(rule: str) -> None:
    outer = optimizer(rule)
    params = [p.requires_grad_() for p in start().values()]
    reference = getattr(torch.optim, rule)(params, lr=0.1)
    for seed in range(3):
        given = gradients(seed)
        outer.update(given)
        for p, slope in zip(params, given.values(), strict=True):
            p.grad = slope.float()
        reference.step()
    for p, value in zip(params, outer.params.values(), strict=True):
        torch.testing.assert_close(value, p.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_saved_goes_on_with_the_same_bits(rule: str) -> None:
    through, stopped = optimizer(rule), optimizer(rule)
    for outer in (through, stopped):
        outer.update(gradients(1, "a"))
        outer.update(gradients(2))
        outer.memory["seen"] = torch.arange(3)
    resumed = optimizer(rule)
    resumed.load(stopped.learned, stopped.state_tensors())
    assert_equal(resumed.memory, {"seen": torch.arange(3)})
    for outer in (through, resumed):
        outer.update(gradients(3, "b", "c"))
        outer.update(gradients(4))
    assert_equal(through.params, resumed.params)


@pytest.mark.parametrize("rule", RULES)
def test_an_update_changes_what_is_named_alone(rule: str) -> None:
    outer, alone = optimizer(rule), optimizer(rule)
    outer.update(gradients(1, "b"))
    alone.update({"b": gradients(1, "b")["b"]})
    assert_equal(outer.params, alone.params)
    for name in "ac":
        assert torch.equal(outer.params[name], start()[name])
    assert not torch.equal(outer.params["b"], start()["b"])


@pytest.mark.parametrize("rule", RULES)
def test_a_look_ahead_is_what_the_update_does_and_changes_nothing(rule: str) -> None:
    outer = optimizer(rule)
    outer.update(gradients(1))
    before, state = {n: v.clone() for n, v in outer.params.items()}, outer.state_tensors()
    ahead = outer.preview(gradients(2, "a"))
    assert_equal(outer.params, before)
    assert_equal(outer.state_tensors(), state)
    outer.update(gradients(2, "a"))
    assert_equal(outer.params, ahead)


def test_settings_of_one_parameter() -> None:
    """The second has a rate of its own, the third does not decay."""
    own = {"b": {"lr": 0.5}, "c": {"weight_decay": 0.0}}
    outer = optimizer("sgd", lambda name: own.get(name, {}), weight_decay=0.2, schedule="linear")
    outer.begin(Moment(5, 10))
    assert [outer.lr(name) for name in "abc"] == [0.05, 0.25, 0.05]
    given, first = gradients(1), start()
    outer.update(given)
    expected = {
        "a": first["a"] - 0.05 * (given["a"].float() + 0.2 * first["a"]),
        "b": first["b"] - 0.25 * (given["b"].float() + 0.2 * first["b"]),
        "c": first["c"] - 0.05 * given["c"].float(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(outer.params[name], value)


def test_a_norm_is_of_what_is_given_and_clips_it() -> None:
    outer = optimizer("sgd", clip_norm=1.0)
    given = {"b": torch.full((5,), 2.0, dtype=torch.float64)}
    assert outer.update(given) == pytest.approx(20**0.5)
    torch.testing.assert_close(outer.params["b"], start()["b"] - 0.1 * 2.0 / 20**0.5)


def test_assigned_values_and_restored_ones() -> None:
    outer = optimizer()
    before = outer.snapshot()
    outer.assign({"a": torch.zeros(3, 4)})
    outer.memory["x"] = torch.ones(2)
    assert torch.equal(outer.learned.params["a"], torch.zeros(3, 4))
    outer.restore(before)
    assert_equal(outer.params, start())
    assert not outer.memory


@pytest.mark.parametrize("given", [{}, {"nothing": torch.zeros(1)}])
def test_gradients_of_nothing_are_told(given: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"no gradients|no learned parameter nothing"):
        optimizer().update(given)


class Momentless(torch.optim.SGD):
    """SGD under an import path."""


class NeedsClosure(torch.optim.Optimizer):
    def step(self, closure: Any) -> None:
        raise NotImplementedError


def test_a_rule_of_ones_own() -> None:
    options = OuterOptions(rule=f"{__name__}:Momentless", lr=0.1, arguments={"maximize": True})
    outer = OuterOptimizer(Learned(start(), {}), options, apart=True)
    outer.begin(Moment(0, 1))
    outer.update(gradients(1, "c"))
    torch.testing.assert_close(outer.params["c"], start()["c"] + 0.1 * gradients(1, "c")["c"].float())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rule": f"{__name__}:NeedsClosure"}, "evaluates the loss several times"),
        ({"rule": f"{__name__}:start"}, "no subclass"),
        ({"optimizer": "RAdam", "arguments": {"betass": 1}}, "cannot be made"),
    ],
)
def test_what_cannot_be_an_outer_rule_is_told(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        OuterOptimizer(Learned(start(), {}), OuterOptions(**options))


def test_arguments_of_our_own_rules_are_told() -> None:
    with pytest.raises(ValueError, match="arguments are those of a class"):
        OuterOptions(optimizer="adam", arguments={"amsgrad": True})
