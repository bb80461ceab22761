"""Laws of every learned optimiser: plain rates are SGD, coordinates are alike, batches, and the three gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raymeta import L2L, Episode, Examples, Learned, LearnedMLP, Part, Phase, Problem, TaskKey
from raymeta.adaptation.unroll import antithetic
from raymeta.algorithms.learned_optimizer import OPTIMIZER, LearnedOptimizer
from raymeta.errors import ConfigError
from raymeta.models import MLP
from raymeta.models.layers.optimizer_rules import LSTMRule, OptimizerRule, PerceptronRule
from raymeta.tasks import Glyphs, Quadratics
from raymeta.tree import Layout, Params

DIM = 3
GLYPHS = Glyphs(way=3, shot=4, train_classes=6, val_classes=3, test_classes=3)
NETWORK = MLP(hidden=(5,), activation="tanh", shrink=7)


class Rates(OptimizerRule):
    """g_t = −a ∇f(θ_t), with a rate for each coordinate, or one for all.

    A power of two as the rate makes the product exact, so it does not matter whether torch rounds before it adds.
    """

    def __init__(self, *rates: float) -> None:
        super().__init__()
        self.rates = nn.Parameter(torch.tensor(rates))

    def start(self, theta: Tensor) -> Params:
        return {"count": theta.new_zeros(())}

    def forward(self, slope: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Params]:
        return -self.rates * slope, {"count": state["count"] + 1}


class Made:
    """A learned optimiser with another rule in place of its own, on one task."""

    def __init__(self, rule: OptimizerRule, *, tasks: Any = None, **options: Any) -> None:
        self.tasks = Quadratics(dim=DIM) if tasks is None else tasks
        self.algorithm: LearnedOptimizer = L2L(init_std=1.0, **options)
        model = self.algorithm.network(NETWORK, self.tasks)
        model.add_module(OPTIMIZER, rule)
        self.problem = Problem(model.double(), goal=self.tasks.goal, vectorize="loop")
        self.learned = self.algorithm.init(self.problem, self.problem.initial_params(), torch.Generator())
        self.key = TaskKey(3, "train", 0, 0)
        self.episode = _double(self.tasks.episode(self.key))

    def noise(self, step: int = 0, **phase: Any) -> dict[str, Tensor]:
        batch = self.tasks.episodes([self.key])
        drawn = self.algorithm.noise(self.problem, [self.key], batch, Phase(step=step, **phase))
        return {name: value[0] for name, value in drawn.items()}

    def part(self, noise: Params, rows: Params | None = None, learned: Learned | None = None) -> Part:
        own: Any = {} if rows is None else {"rows": rows}
        function = self.algorithm.first_window if rows is None else self.algorithm.window
        return function(self.problem, learned or self.learned, self.episode, noise=noise, phase=Phase(), **own)

    def losses(self, num_steps: int, noise: Params, learned: Learned | None = None) -> Tensor:
        rows = self.algorithm.start(self.problem, noise)
        args = self.problem, learned or self.learned, self.episode.support, rows, num_steps
        return self.algorithm.unrolled(*args, noise=noise, phase=Phase(way=3)).losses


def _double(episode: Episode) -> Episode:
    return Episode(*(Examples(s.x.double(), s.y.double() if s.y.is_floating_point() else s.y) for s in episode))  # type: ignore[union-attr]


def test_a_plain_rate_is_sgd_on_a_quadratic_bit_for_bit() -> None:
    made = Made(Rates(2**-5), unroll=7)
    noise = made.noise()
    theta = noise["theta"].clone().requires_grad_()
    sgd, expected = torch.optim.SGD([theta], lr=2**-5), []
    for _ in range(7):
        value = (made.episode.support.x @ theta - made.episode.support.y[:, 0]).square().sum()  # type: ignore[operator]
        expected.append(value.detach())
        sgd.zero_grad()
        value.backward()
        sgd.step()
    part = made.part(noise)
    assert torch.equal(part.rows["theta"], theta.detach())
    assert torch.equal(made.losses(7, noise)[:-1], torch.stack(expected))


def test_a_plain_rate_is_sgd_on_a_network_with_its_batches_bit_for_bit() -> None:
    made = Made(Rates(2**-3), tasks=GLYPHS, batch_size=4, unroll=5)
    noise, (x, y, _) = made.noise(), made.episode.support
    model = NETWORK.build(GLYPHS.input_shape, 3).double()
    with torch.no_grad():
        values = Layout.of(dict(model.named_parameters())).unflatten(noise["theta"])
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    sgd, losses = torch.optim.SGD(model.parameters(), lr=2**-3), []
    for batch in noise["batch"]:
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])  # type: ignore[index]
        losses.append(loss.detach())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    assert torch.equal(made.losses(5, noise), torch.stack(losses))


def test_batches_go_on_from_window_to_window_and_evaluation_begins_with_the_same() -> None:
    made = Made(Rates(0.1), tasks=GLYPHS, batch_size=2, unroll=3, windows=2)
    first, second, whole = made.noise(0), made.noise(1), made.noise(0, training=False)
    assert torch.equal(torch.cat([first["batch"][:-1], second["batch"]]), whole["batch"])
    assert torch.equal(first["batch"][-1], second["batch"][0])
    assert torch.equal(made.noise(2)["batch"], first["batch"]), "a new episode, whose key says what is drawn"
    assert int(whole["batch"].max()) < 12
    assert len(whole["batch"].unique()) > 6, "from all of the support set"


def test_networks_start_around_zero_and_gains_around_one() -> None:
    made = Made(Rates(0.1), tasks=GLYPHS, unroll=1)
    algorithm = L2L(init_std=1e-3)
    assert made.noise()["theta"].abs().max() > 0.1
    model = algorithm.network(MLP(hidden=(5,), norm="batch", shrink=7), GLYPHS)
    problem = Problem(model, goal="classification")
    theta = algorithm.noise(problem, [made.key], GLYPHS.episodes([made.key]), Phase())["theta"][0]
    starts = Layout.of(dict(model.body.named_parameters())).unflatten(theta)  # type: ignore[union-attr,operator]
    (gain,) = (value for name, value in starts.items() if name.startswith("norm1") and name.endswith("weight"))
    assert (gain - 1).abs().max() < 0.01
    assert all(v.abs().max() < 0.01 for n, v in starts.items() if not n.startswith("norm1"))


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", [LSTMRule, PerceptronRule])
def test_coordinates_that_change_places_change_places(kind: Any) -> None:
    own = {"log_range": 10.0} if kind is LSTMRule else {}
    rule, order = kind(8, 2, output_scale=0.3, **own).double(), torch.tensor([2, 0, 3, 1])
    slopes = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    one, other = rule.start(slopes[0]), rule.start(slopes[0])
    for slope in slopes:
        update, one = rule(slope, one)
        moved, other = rule(slope[order], other)
        torch.testing.assert_close(moved, update[order], rtol=1e-12, atol=1e-14)
    assert len(update.unique()) == 4


def test_the_perceptron_does_not_see_the_scale_of_slopes_but_in_their_size() -> None:
    """Its first step is the same for slopes of other scales, where its input of their size weighs nothing."""
    rule = PerceptronRule(8, 1, output_scale=0.3).double()
    with torch.no_grad():
        rule.layers[0].weight[:, 4] = 0  # type: ignore[union-attr,index]
    slope = torch.tensor([0.3, -2.0, 1.5]).double()
    updates = [rule(scale * slope, rule.start(slope))[0] for scale in (1.0, 1e-3)]
    torch.testing.assert_close(*updates, rtol=1e-4, atol=0)
    assert not torch.allclose(rule(slope, rule.start(slope))[0], rule(slope, rule(slope, rule.start(slope))[1])[0])


def test_the_perceptron_is_told_what_it_says() -> None:
    """With one layer that passes everything on, its inputs after two steps, by hand."""
    rule, seen = PerceptronRule(4, 1, output_scale=1.0).double(), []
    rule.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    slopes = torch.tensor([[0.3, -2.0], [0.1, 1.0]]).double()
    state = rule.start(slopes[0])
    for slope in slopes:
        _, state = rule(slope, state)
    size = ((0.99 * 0.01 * slopes[0] ** 2 + 0.01 * slopes[1] ** 2) / (1 - 0.99**2)).sqrt()
    means = [(d * (1 - d) * slopes[0] + (1 - d) * slopes[1]) / (1 - d**2) / size for d in (0.5, 0.9, 0.99)]
    times = [torch.full((2,), math.tanh(2 / t - 1)).double() for t in (3, 10, 30, 100, 300, 1000)]
    expected = torch.stack([slopes[1] / size, *means, size.log() / 10, *times], 1)
    torch.testing.assert_close(seen[1], expected, rtol=1e-6, atol=1e-7)


def exact(made: Made, num_steps: int, noise: Params) -> Tensor:
    """The derivative of Σ f(θ_t) in the rates, everything differentiated."""
    rates = made.learned.params["optimizer.rates"].clone().requires_grad_()
    theta, total = noise["theta"], torch.zeros(())
    x, y, _ = made.episode.support
    for _ in range(num_steps):
        theta = theta - rates * (2 * x.T @ (x @ theta - y[:, 0]))  # type: ignore[union-attr,operator]
        total = total + (x @ theta - y[:, 0]).square().sum()  # type: ignore[operator]
    return torch.autograd.grad(total, rates)[0]


@pytest.mark.parametrize("train", ["es", "pes"])
def test_orthogonal_antithetic_directions_give_the_gradient_of_a_quadratic(train: str) -> None:
    """After one step f is a quadratic in the rates, so pairs cancel all that is even, whatever σ is."""
    made = Made(Rates(0.02, 0.01, 0.03), unroll=1, train=train, sigma=0.5, pairs=DIM)
    directions = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(0)).double())[0]
    noise = made.noise() | {"perturbation": DIM**0.5 * directions}
    found = made.part(noise).sums["optimizer.rates"]
    torch.testing.assert_close(found, exact(made, 1, noise), rtol=1e-10, atol=1e-12)


def test_the_derivative_of_one_step_is_exact_too() -> None:
    made = Made(Rates(0.02, 0.01, 0.03), unroll=1)
    torch.testing.assert_close(made.part(made.noise()).sums["optimizer.rates"], exact(made, 1, made.noise()))


def test_persistent_is_plain_in_the_first_window() -> None:
    es, pes = (Made(Rates(0.02, 0.01, 0.03), unroll=4, train=train, pairs=2) for train in ("es", "pes"))
    noise = es.noise()
    assert torch.equal(es.part(noise).sums["optimizer.rates"], pes.part(noise).sums["optimizer.rates"])
    assert torch.equal(pes.part(noise).rows["drift"], noise["perturbation"])


def test_evolution_strategies_go_on_unperturbed_and_persistent_ones_on_both_sides() -> None:
    es, pes = (Made(Rates(0.02, 0.01, 0.03), unroll=4, train=train, pairs=2) for train in ("es", "pes"))
    noise = es.noise()
    plain = Made(Rates(0.02, 0.01, 0.03), unroll=4)
    assert torch.equal(es.part(noise).rows["theta"], plain.part(noise).rows["theta"])
    sides = pes.part(noise).rows["theta"]
    for pair in range(2):
        for side, sign in enumerate((1, -1)):
            rates = es.learned.params["optimizer.rates"] + sign * 0.01 * noise["perturbation"][pair]
            moved = es.learned._replace(params={"optimizer.rates": rates})
            expected = plain.part(noise, learned=moved).rows["theta"]
            torch.testing.assert_close(sides[2 * side + pair], expected, rtol=1e-12, atol=1e-12)


def test_persistent_windows_add_up_to_the_whole_unroll() -> None:
    """With the same perturbation in both windows, up to its sum: L⁺ − L⁻ of the second window is weighed by ε + ε."""
    made, long = (Made(Rates(0.02, 0.01, 0.03), unroll=u, train="pes", pairs=1) for u in (2, 4))
    noise = made.noise()
    first = made.part(noise)
    second = made.part(noise, first.rows)
    whole = long.part(noise).sums["optimizer.rates"]
    torch.testing.assert_close(first.sums["optimizer.rates"] + second.sums["optimizer.rates"] / 2, whole)


def test_the_estimate_is_that_of_its_formula() -> None:
    layout, draws = Layout({"a": (2,), "b": (1,)}), torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]])
    found = antithetic(layout, torch.tensor([5.0, 1.0, 2.0, 3.0]), draws, sigma=0.5)
    expected = ((5 - 2) * draws[0] + (1 - 3) * draws[1]) / (2 * 0.5 * 2)
    assert torch.equal(torch.cat([found["a"], found["b"]]), expected)


def test_every_window_and_every_task_has_perturbations_of_its_own() -> None:
    made = Made(Rates(0.1, 0.1, 0.1), train="es", pairs=2, windows=3)
    keys = [TaskKey(3, "train", 0, index) for index in range(2)]
    batch = made.tasks.episodes(keys)
    drawn = [made.algorithm.noise(made.problem, keys, batch, Phase(step=step)) for step in range(3)]
    assert torch.stack([one["perturbation"] for one in drawn]).unique().numel() == 3 * 2 * 2 * DIM
    assert all(torch.equal(one["theta"], drawn[0]["theta"]) for one in drawn)
    assert "perturbation" not in made.algorithm.noise(made.problem, keys, batch, Phase(training=False))


def test_running_statistics_are_refused() -> None:
    algorithm = LearnedMLP()
    model = algorithm.network(MLP(hidden=(5,), norm="batch", shrink=7), GLYPHS)
    problem = Problem(model, goal="classification", batch_norm="running")
    with pytest.raises(ConfigError, match="no running statistics"):
        algorithm.init(problem, problem.initial_params(), torch.Generator())
