"""Modules as functions of their tensors: the same as torch's own function, and the module as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.models.as_function import AsFunction
from raymeta.models.conv4 import Conv4
from raymeta.models.layers.convert import convert


def tied() -> nn.Module:
    """One tensor under two names."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


class Writes(nn.Module):
    """A forward that replaces a buffer, which functional_call tells its caller."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + self.last
        self.last = y.detach().mean(0)
        return y


MODELS: dict[str, Callable[[], nn.Module]] = {
    "conv4": lambda: Conv4(width=4).build((1, 28, 28), 5),
    "with buffers": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4).eval()),
    "recurrent": lambda: nn.LSTM(4, 3),
    "parametrized": lambda: convert(weight_norm(nn.Linear(4, 4))),
    "tied": tied,
    "one layer twice": lambda: nn.Sequential(*[nn.Linear(4, 4)] * 2),
    "writes": Writes,
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_torchs_functional_call(name: str) -> None:
    """With its results, and with what the module leaves in the values that it was given."""
    torch.manual_seed(0)
    module = MODELS[name]()
    x = torch.rand(3, 1, 28, 28) if name == "conv4" else torch.rand(3, 4)
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    values, others = ({n: v.detach() + 0.1 if v.is_floating_point() else v for n, v in own.items()} for _ in range(2))
    found, expected = AsFunction(module)(values, (x,)), functional_call(module, others, (x,))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(values, others, rtol=0, atol=0)
    assert AsFunction(module).names == own.keys()


def test_the_module_is_as_it_was() -> None:
    """After a call, and after one that fails."""
    module = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    function, before = AsFunction(module), dict(module.named_parameters())
    values = {name: value.detach() + 1 for name, value in before.items()}
    function(values, (torch.rand(3, 4),))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        function(values, (torch.rand(3, 5),))
    assert all(value is before[name] for name, value in module.named_parameters())


def test_what_is_not_given_is_the_modules_own() -> None:
    module = nn.Linear(4, 2)
    x = torch.rand(3, 4)
    bias = torch.rand(2)
    found = AsFunction(module)({"bias": bias}, (), {"input": x})
    assert torch.equal(found, nn.functional.linear(x, module.weight, bias))


def test_parts_that_are_equal_are_not_the_same() -> None:
    """The body is a copy of the model without its head; modules may say that two of them are equal."""

    class Equal(nn.Sequential):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        def __hash__(self) -> int:
            return 1

    problem = Problem(Equal(nn.Linear(4, 3), nn.Linear(3, 2)), goal="classification")
    learned, x = Learned(problem.initial_params(), {}), torch.rand(5, 4)
    for copied in (problem, copy.deepcopy(problem)):
        assert copied.forward(learned, x, Phase()).shape == (5, 2)
        assert copied.features(learned, x, Phase()).shape == (5, 3)
