"""DADA: what is learned of changes of images is what they do for a clean batch through the model's step, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_step import one_step
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta import DADA, Episode, Plain, TaskKey
from raymeta.adaptation.picture_operations import OPERATIONS, hats, operated
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.dada import (
    CHANCES,
    MAGNITUDES,
    PAIRS,
    SURROGATE,
    SWITCHES,
    WEIGHTS,
    Draws,
    changed,
    chosen_pair,
    draws_of,
    surrogate,
    uses,
)
from raymeta.algorithms.look_ahead import model_of
from raymeta.models.layers.beside import Beside
from raymeta.tasks.episodes import Examples, in_type, stack_episodes
from raymeta.trackers.names import OPERATION_USES
from raymeta.tree import Params
from raymeta.views.pages.run import run_page
from raymeta.views.sources.run import RunSource

WAY, SIDE, RATE, COUNT = 3, 6, 0.3, 5
KEYS = [TaskKey(0, "train", 0, index) for index in range(2)]
NEVER = {CHANCES: torch.full((len(PAIRS), 2), -1e3, dtype=torch.float64)}


def episode(key: TaskKey) -> Episode:
    """Random images, whose classes mean nothing."""
    draws = key.generator()
    sides = [torch.from_numpy(draws.random((COUNT, 1, SIDE, SIDE))) for _ in range(2)]
    return Episode(*(Examples(x, torch.from_numpy(draws.integers(0, WAY, COUNT))) for x in sides))


def episodes() -> list[Episode]:
    return [in_type(torch.float64, episode(key)) for key in KEYS]


def body() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 4), nn.Tanh(), nn.Linear(4, WAY)).double()


def stepped(algorithm: DADA, vectorize: Any = "vmap", **options: Any) -> Any:
    network = Beside(body(), **{SURROGATE: surrogate(len(PAIRS) + 2, 4)}).double()
    return one_step(algorithm, network, episodes(), RATE, vectorize, keys=KEYS, **options)


def draws(algorithm: DADA) -> list[Draws]:
    problem = Problem(body(), goal="classification")
    noise = algorithm.noise(problem, KEYS, stack_episodes(episodes()), Phase())
    return [draws_of({"u": noise["u"][t]}) for t in range(len(KEYS))]


# Plain autograd


def outputs(params: Params, x: Tensor) -> Tensor:
    hidden = torch.tanh(x.flatten(1) @ params["body.1.weight"].T + params["body.1.bias"])
    return hidden @ params["body.3.weight"].T + params["body.3.bias"]


def gradients(params: Params, x: Tensor, y: Tensor) -> Params:
    own = {name: value.clone().requires_grad_() for name, value in model_of(params).items()}
    found = torch.autograd.grad(F.cross_entropy(outputs(own, x), y), list(own.values()))
    return dict(zip(own, found, strict=True))


def mean(some: list[Params]) -> Params:
    return {name: torch.stack([one[name] for one in some]).mean(0) for name in some[0]}


def ahead(params: Params) -> Params:
    """The model after a plain step on the images as the policy changes them."""
    pairs = zip(episodes(), draws(DADA()), strict=True)
    gradient = mean([gradients(params, changed(e.support.x, params, d), e.support.y) for e, d in pairs])
    return {name: params[name] - RATE * value for name, value in gradient.items()}


def clean_loss(params: Params) -> Tensor:
    there = ahead(params)
    return torch.stack([F.cross_entropy(outputs(there, e.query.x), e.query.y) for e in episodes()]).mean()


def worths(params: Params) -> tuple[list[Tensor], list[Tensor]]:
    """R_i = −⟨∇f_i, λ ∇L(w')⟩ / n of the images of each task [n], and |λ ∇L(w')| / n."""
    there = ahead(params)
    clean = mean([gradients(there, e.query.x, e.query.y) for e in episodes()])
    found = []
    for e, d in zip(episodes(), draws(DADA()), strict=True):
        x = changed(e.support.x, params, d)
        each = [gradients(params, x[i : i + 1], e.support.y[i : i + 1]) for i in range(COUNT)]
        slopes = [torch.stack([(one[name] * clean[name]).sum() for name in clean]).sum() for one in each]
        found.append(-RATE * torch.stack(slopes) / COUNT)
    norm = torch.cat([value.flatten() for value in clean.values()]).norm()
    return found, [RATE * norm / COUNT] * len(found)


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_magnitudes_follow_finite_differences(vectorize: Any) -> None:
    outer, params = stepped(DADA(), vectorize)
    gradient = outer.updates[0][MAGNITUDES]
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = [clean_loss(params | {MAGNITUDES: params[MAGNITUDES] + s * direction}) for s in (1e-5, -1e-5)]
    found = float((gradient * direction).sum())
    assert found == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)
    assert abs(found) > 1e-5


def test_choices_are_worth_what_they_do_for_the_clean_batch() -> None:
    """A surrogate begins at 0, so the estimates are REINFORCE's."""
    outer, params = stepped(DADA())
    expected: list[Params] = []
    for d, worth in zip(draws(DADA()), worths(params)[0], strict=True):
        pair = chosen_pair(params, d)
        on = SWITCHES.chosen(SWITCHES.relaxed(pair @ params[CHANCES], d.on))
        assert 0 < on.sum() < on.numel()
        scores = worth[:, None] * (pair - 1 / len(PAIRS)), worth[:, None] * (on - 0.5)
        expected.append({WEIGHTS: scores[0].sum(0), CHANCES: pair.T @ scores[1]})
    for name, value in mean(expected).items():
        torch.testing.assert_close(outer.updates[0][name], value, rtol=1e-6, atol=1e-12)
        assert value.abs().max() > 1e-6


def test_the_model_steps_with_the_new_policy() -> None:
    outer, params = stepped(DADA(policy_lr=0.5))
    new = {name: value for name, value in outer.params.items() if name.startswith("policy/")}
    assert set(outer.updates[0]) == {name for name in params if DADA().is_meta(name)}
    assert all(not torch.equal(new[name], params[name]) for name in new)
    expected, before = ahead(params | new), ahead(params)
    for name, value in expected.items():
        torch.testing.assert_close(outer.params[name], value, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(before[name], value, rtol=1e-6)


def test_the_surrogate_learns_from_the_square_of_the_estimate() -> None:
    """The derivative in the surrogate's bias c at c = 0 is that of Σ (R − c)² |∇ log p|² in units of |d| / n."""
    outer, params = stepped(DADA(surrogate_lr=0.1))
    assert not params[f"{SURROGATE}.score.weight"].any()
    assert not torch.equal(outer.params[f"{SURROGATE}.score.weight"], params[f"{SURROGATE}.score.weight"])
    found = []
    for d, worth, direction in zip(draws(DADA()), *worths(params), strict=True):
        pair = chosen_pair(params, d)
        norms = (pair - 1 / len(PAIRS)).square().sum(1) + 2 * 0.5**2
        found.append((-2 * worth / direction * norms).mean())
    bias = outer.updates[0][f"{SURROGATE}.score.bias"]
    torch.testing.assert_close(bias, torch.stack(found).mean()[None], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("policy", ["uniform", "random"])
def test_operations_that_never_happen_leave_plain_training(policy: Any) -> None:
    outer, _ = stepped(DADA(policy=policy), "loop", params=NEVER)
    plain, _ = one_step(Plain(), body(), episodes(), RATE, "loop")
    for name, value in plain.params.items():
        assert torch.equal(outer.params[f"body.{name}"], value)
    other, _ = stepped(DADA(policy=policy), "loop")
    assert not torch.equal(other.params["body.1.weight"], outer.params["body.1.weight"])


def test_a_policy_that_is_not_learned_stays() -> None:
    for policy in ("uniform", "random"):
        outer, params = stepped(DADA(policy=policy))  # type: ignore[arg-type]
        assert len(outer.updates) == 1
        assert all(torch.equal(outer.params[n], v) for n, v in params.items() if n.startswith("policy/"))


def test_what_is_found_are_the_heaviest_pairs_with_chance_and_magnitude() -> None:
    problem = Problem(Beside(body(), surrogate=nn.Identity()), goal="classification")
    weights = torch.linspace(-3, 0, len(PAIRS)).double()
    policy = {WEIGHTS: weights, CHANCES: torch.zeros(len(PAIRS), 2), MAGNITUDES: torch.full((len(PAIRS), 2), 1.0)}
    found = DADA().found(problem, Learned(policy, {}))["policy"]
    last = " + ".join(f"{OPERATIONS[one]} 0.50 x 0.73" for one in PAIRS[-1])
    assert found.startswith(f"{100 * weights.softmax(0)[-1]:.1f} %: {last}, ")
    assert found.count(" %: ") == 5
    assert DADA(policy="uniform").found(problem, Learned(policy, {})) == {}


def test_an_operation_is_used_as_often_as_its_pairs_and_their_switches_say() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = {WEIGHTS: (len(PAIRS),), CHANCES: (len(PAIRS), 2)}
    policy = {name: torch.randn(shape, generator=generator).double() for name, shape in logits.items()}
    shares, chances = policy[WEIGHTS].softmax(0), policy[CHANCES].sigmoid()
    expected = torch.zeros(len(OPERATIONS)).double()
    for pair, operations in enumerate(PAIRS):
        for place, operation in enumerate(operations):
            expected[operation] += shares[pair] * chances[pair, place]
    torch.testing.assert_close(uses(policy), expected)


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_a_run_tells_how_likely_each_operation_is_and_draws_it(tmp_path: Path) -> None:
    """At first every sub-policy is as likely, and its operations are on in half of the images: 1/8 of 2 times 1/2."""
    small: dict[str, Any] = {
        "tasks.classes": 3,
        "tasks.drawers": 12,
        "tasks.clean": 3,
        "tasks.test": 2,
        "tasks.batch": 6,
    }
    small |= {"tasks.clean_batch": 4, "model.width": 2, "meta_batch_size": 2, "validate_every": 0}
    run = raymeta.meta_train("glyphs-dada", steps=2, output=str(tmp_path), **small)
    rows = run.metrics()
    for row in rows:
        assert [row[name] for name in OPERATION_USES] == pytest.approx([1 / 8] * len(OPERATIONS), abs=0.02)
    assert len({row[OPERATION_USES[0]] for row in rows}) == 2
    assert "augmentation" in run.figures()
    sections = {one["id"]: one for one in run_page(RunSource(run.path))["sections"]}
    assert (run.summary or {})["found"]["policy"] in str(sections["augmentation"])
    assert "architecture" not in sections


def test_a_random_policy_is_that_of_the_seed() -> None:
    problem = Problem(Beside(body()), goal="classification")
    found = [
        DADA(policy="random").init(problem, problem.initial_params(), torch.Generator().manual_seed(seed)).params
        for seed in (1, 1, 2)
    ]
    assert torch.equal(found[0][WEIGHTS], found[1][WEIGHTS])
    assert not torch.equal(found[0][WEIGHTS], found[2][WEIGHTS])


def test_each_task_and_image_has_draws_of_its_own() -> None:
    one, other = draws(DADA())
    assert not torch.equal(one.pair, other.pair)
    assert len(one.pair.unique(dim=0)) == COUNT
    assert DADA().noise(Problem(body(), goal="classification"), KEYS, episode(KEYS[0]), Phase(training=False)) == {}


# Operations


def one_hot(name: str, count: int = 1) -> Tensor:
    which = torch.zeros(count, len(OPERATIONS), dtype=torch.float64)
    which[:, OPERATIONS.index(name)] = 1
    return which


def picture(count: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((count, 2, 5, 8)))


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "invert"])
def test_an_operation_without_strength_changes_nothing(name: str) -> None:
    x = picture(3)
    torch.testing.assert_close(operated(x, one_hot(name, 3), torch.zeros(3).double()), x, rtol=0, atol=1e-15)
    assert not torch.allclose(operated(x, one_hot(name, 3), torch.full((3,), 0.7).double()), x, atol=1e-2)


def test_operations_are_what_they_are_called() -> None:
    x = picture()
    by_two = torch.tensor([2 / (0.45 * 8)], dtype=torch.float64)
    moved = operated(x, one_hot("translate_x"), by_two)
    torch.testing.assert_close(moved, torch.cat([x[..., 2:], x[..., -1:], x[..., -1:]], 3))
    torch.testing.assert_close(
        operated(x, one_hot("translate_y"), torch.tensor([1 / (0.45 * 5)]).double()),
        torch.cat([x[..., 1:, :], x[..., -1:, :]], 2),
        atol=1e-6,
        rtol=1e-6,
    )
    torch.testing.assert_close(operated(x, one_hot("invert"), by_two), 1 - x)
    torch.testing.assert_close(operated(x, one_hot("brightness"), -by_two / by_two), 0.1 * x)
    torch.testing.assert_close(operated(x, one_hot("contrast"), -by_two / by_two), 0.9 * x.mean() + 0.1 * x)


def test_turning_is_about_the_middle() -> None:
    """Thirty degrees to one side and back is a cross again, which a turned one is not."""
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[..., 4, 4] = 1
    for strength in (1.0, -0.5):
        turned = operated(x, one_hot("rotate"), torch.tensor([strength]).double())
        assert turned[0, 0, 4, 4] == 1
    x[..., 4, 7] = 1
    turned = operated(x, one_hot("rotate"), torch.ones(1).double())
    height, width = (turned[0, 0] * (torch.arange(81).view(9, 9) != 40)).nonzero().double().mean(0) - 4
    assert abs(float(torch.atan2(height.abs(), width)) - np.pi / 6) < 0.15


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "invert"])
def test_derivatives_in_strength_are_those_of_differences(name: str) -> None:
    x, which = 0.2 + 0.2 * picture(), one_hot(name)
    at = torch.tensor([0.37], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: operated(x, which, s), (at,))


def test_side_by_side_is_one_after_another() -> None:
    x, strength = picture(len(OPERATIONS)), torch.linspace(-1, 1, len(OPERATIONS)).double()
    which = torch.eye(len(OPERATIONS)).double()
    together = operated(x, which, strength)
    for i in range(len(OPERATIONS)):
        torch.testing.assert_close(together[i : i + 1], operated(x[i : i + 1], which[i : i + 1], strength[i : i + 1]))
    mapped = torch.vmap(operated)(x[:, None], which[:, None], strength[:, None])
    torch.testing.assert_close(mapped[:, 0], together)


def test_a_place_between_two_pixels_is_shared_by_them() -> None:
    found = hats(torch.tensor([[1.25, -3.0]]), torch.arange(4.0))
    torch.testing.assert_close(found, torch.tensor([[[0, 0.75, 0.25, 0], [1.0, 0, 0, 0]]]))


def test_a_direction_of_zero_leaves_the_policy_as_it_is() -> None:
    outer, _ = stepped(DADA(virtual_lr=0))
    for name, value in outer.updates[0].items():
        assert torch.equal(value, torch.zeros_like(value)), name
