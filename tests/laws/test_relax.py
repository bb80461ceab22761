"""RELAX: without a surrogate it is REINFORCE, which of all choices together is exact; no surrogate changes its mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raymeta.adaptation.relax import Choice, OneOf, Surrogate, Switches, estimate
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.tree import Params

CHOICES: dict[str, Choice] = {"one of three": OneOf(), "three switches": Switches()}
LOGITS = torch.tensor([0.4, -1.0, 0.7], dtype=torch.float64)


def uniform(*sizes: int, seed: int = 0) -> Tensor:
    drawn = torch.rand(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.clamp(1e-12, 1 - 1e-12)


def nothing(z: Tensor) -> Tensor:
    return 0 * z.sum(1)


def curved(choice: Choice) -> Surrogate:
    """Some smooth function of relaxed choices."""
    return lambda z: torch.sin(3 * choice.softened(z, 0.5) @ torch.arange(1, z.shape[1] + 1).to(z))


@pytest.mark.parametrize("name", CHOICES)
def test_without_a_surrogate_it_is_reinforce(name: str) -> None:
    choice, logits, u = CHOICES[name], LOGITS.repeat(7, 1), uniform(7, 3)
    value = torch.linspace(-1, 2, 7, dtype=torch.float64)
    found = estimate(choice, logits, u, uniform(7, 3, seed=1), value, nothing)
    b = choice.chosen(choice.relaxed(logits, u))
    logits.requires_grad_()
    on = torch.where(b > 0, logits.sigmoid(), 1 - logits.sigmoid()).log()
    log_prob = (b * logits.log_softmax(1)).sum() if isinstance(choice, OneOf) else on.sum()
    (score,) = torch.autograd.grad(log_prob, logits)
    torch.testing.assert_close(found, value[:, None] * score)


def test_over_both_sides_of_a_switch_it_is_the_difference_of_values() -> None:
    """Σ_b p(b) f(b) ∂ log p(b) / ∂p = f(1) − f(0), and in the logit p (1 − p) times that."""
    logits, values = LOGITS[:1].expand(2, 1), torch.tensor([5.0, -2.0], dtype=torch.float64)
    u = torch.tensor([[1e-9], [1 - 1e-9]], dtype=torch.float64)
    found = estimate(Switches(), logits, u, u, values, nothing)
    p = LOGITS[0].sigmoid()
    mean = (torch.stack([1 - p, p])[:, None] * found).sum()
    torch.testing.assert_close(mean / (p * (1 - p)), values[1] - values[0])


def test_over_all_categories_it_is_the_exact_gradient() -> None:
    """p_k (f_k − Σ p_j f_j)."""
    values = torch.tensor([5.0, -2.0, 1.0], dtype=torch.float64)
    u = torch.full((3, 3), 1e-9, dtype=torch.float64) + torch.eye(3, dtype=torch.float64) * (1 - 2e-9)
    found = estimate(OneOf(), LOGITS.expand(3, 3), u, u, values, nothing)
    p = LOGITS.softmax(0)
    torch.testing.assert_close((p[:, None] * found).sum(0), p * (values - (p * values).sum()))


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_drawn_again_is_the_same_choice(name: str) -> None:
    choice, logits = CHOICES[name], LOGITS.repeat(1000, 1)
    b = choice.chosen(choice.relaxed(logits, uniform(1000, 3)))
    assert len(b.unique(dim=0)) == (3 if isinstance(choice, OneOf) else 8)
    assert torch.equal(choice.chosen(choice.again(logits, b, uniform(1000, 3, seed=1))), b)


@pytest.mark.parametrize("name", CHOICES)
def test_a_surrogate_does_not_change_the_mean(name: str) -> None:
    choice, count = CHOICES[name], 100_000
    u, v = uniform(count, 3), uniform(count, 3, seed=1)
    found = estimate(choice, LOGITS.repeat(count, 1), u, v, torch.zeros_like(u[:, 0]), curved(choice))
    error = found.std(0) / count**0.5
    assert (found.std(0) > 0.05).all(), "else there is nothing to see"
    assert (found.mean(0).abs() < 4 * error).all()


@pytest.mark.parametrize("name", CHOICES)
def test_without_temperature_a_relaxed_choice_is_the_choice(name: str) -> None:
    choice = CHOICES[name]
    z = choice.relaxed(LOGITS.repeat(50, 1), uniform(50, 3))
    torch.testing.assert_close(choice.softened(z, 1e-6), choice.chosen(z))
    assert not torch.allclose(choice.softened(z, 0.5), choice.chosen(z))


def test_a_surrogate_that_is_trained_lowers_the_variance() -> None:
    """On the toy of Tucker et al. and of Grathwohl et al., f(b) = (b − 0.45)²."""
    logits, count = torch.zeros(2000, 1, dtype=torch.float64), 2000
    own = {"weights": torch.zeros(3, dtype=torch.float64)}

    def squared(surrogate: Surrogate, seed: int) -> Tensor:
        u, v = uniform(count, 1, seed=2 * seed), uniform(count, 1, seed=2 * seed + 1)
        value = (Switches().chosen(Switches().relaxed(logits, u))[:, 0] - 0.45).square()
        return estimate(Switches(), logits, u, v, value, surrogate).square().mean()

    def linear_in(own: Params) -> Surrogate:
        def surrogate(z: Tensor) -> Tensor:
            soft = Switches().softened(z, 0.5)
            return torch.cat([torch.ones_like(soft), soft, soft.square()], 1) @ own["weights"]

        return surrogate

    for seed in range(60):
        slope, _ = gradient_and_value(lambda own, seed=seed: squared(linear_in(own), seed), own)
        own = {"weights": own["weights"] - 2 * slope["weights"]}
    assert squared(linear_in(own), 99) < 0.3 * squared(nothing, 99)
