"""Habits of a forward that show only under a condition, in a later call, or under another kind of derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp
from wild_models import Wild, by_autograd, gradient_of, within

from raymeta.errors import ConfigError

PATHS = ("vmap", "loop")


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class WritesInCall(nn.Module):
    """Cuts its weights in its n-th call alone: the first is a model that only computes."""

    def __init__(self, number: int, *, through_data: bool) -> None:
        super().__init__()
        self.linear, self.number, self.through_data, self.calls = nn.Linear(6, 4), number, through_data, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.number:
            with torch.no_grad():
                weight = self.linear.weight.data if self.through_data else self.linear.weight
                weight.clamp_(-0.1, 0.1)
        return self.linear(x)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("through_data", [True, False])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_parameter_that_is_written_in_a_later_call_is_told(path: str, through_data: bool, number: int) -> None:
    wild = Wild("", within(lambda: WritesInCall(number, through_data=through_data)))
    with pytest.raises(ConfigError, match=r"writes its own parameter layer\.linear\.weight"):
        gradient_of(wild, path, num_steps=2)


class CachedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    @cached_property
    def weight(self) -> Tensor:
        return self.linear.weight / self.linear.weight.norm()

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


@pytest.mark.parametrize("path", PATHS)
def test_a_value_kept_between_calls_is_that_of_autograd_or_refused(path: str) -> None:
    """Inner steps that are computed again would compute it from other parameters."""
    wild = Wild("", within(CachedWeight))
    gradient = gradient_of(wild, path)
    for name, value in by_autograd(wild, 2).items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-9, atol=1e-11)
    with pytest.raises(ConfigError, match=r"layer\.weight.*checkpoint_inner_steps"):
        gradient_of(wild, path, checkpoint_inner_steps=True)


class FromPrimitives(nn.Module):
    """The norm of g groups of 8 features."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        z = x.reshape(len(x), self.groups, -1)
        z = (z - z.mean(-1, keepdim=True)) * torch.rsqrt(z.var(-1, keepdim=True, correction=0) + 1e-5)
        return z.reshape(x.shape) * self.weight + self.bias


class Tangent(nn.Module):
    """Uses the slope of a normalised layer in the direction of ones."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 8), norm

    def forward(self, x: Tensor) -> Tensor:
        outputs, slope = jvp(lambda z: torch.tanh(self.norm(self.linear(z))), (x,), (torch.ones_like(x),))
        return outputs + 0.5 * slope


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("norm", "groups"), [(lambda: nn.LayerNorm(8), 1), (lambda: nn.GroupNorm(2, 8), 2)], ids=["layer", "group"]
)
def test_norms_are_exact_under_a_derivative_taken_forwards(
    path: str, norm: Callable[[], nn.Module], groups: int
) -> None:
    """torch's kernels are wrong there: 50 % of this meta-gradient."""
    ours = gradient_of(Wild("", within(lambda: Tangent(norm()))), path)
    right = gradient_of(Wild("", within(lambda: Tangent(FromPrimitives(groups)))), path)
    for name, value in right.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-12)
