"""MAML++: its weights, its limits, and all of it beside a plain loop of autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta import MAML, Episode, Examples, Learned, MAMLPlusPlus, Phase, Problem, TaskKey, meta_gradient
from raymeta.adaptation.problem import BatchNormPolicy, Part, Vectorize
from raymeta.algorithms.maml_pp import FIRST_ORDER, STEP_WEIGHTS, step_weights
from raymeta.errors import ConfigError
from raymeta.models.layers.convert import convert
from raymeta.models.layers.step_norm import with_step_norms
from raymeta.tasks.episodes import stack_episodes
from raymeta.tree import Params

VECTORIZE: tuple[Vectorize, ...] = ("vmap", "loop")
WAY, K = 3, 3
OFF: dict[str, Any] = {"multi_step_epochs": 0, "learned_rates": False, "step_statistics": False, "step_affine": False}


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episodes(count: int = 2) -> list[Episode]:
    y = torch.arange(WAY).repeat_interleave(3)
    return [Episode(*(Examples(draw(9, 4, seed=20 * t + s), y) for s in (0, 1))) for t in range(count)]


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, WAY)).double()


def test_weights_of_the_paper() -> None:
    """K = 5 in 10 epochs; they always add up to 1."""
    assert step_weights(5, 0, 10) == pytest.approx([0.2] * 5)
    assert step_weights(5, 5, 10) == pytest.approx([0.1] * 4 + [0.6])
    assert step_weights(5, 10, 10) == pytest.approx([0.006] * 4 + [0.976])
    assert all(sum(step_weights(k, e, 7)) == pytest.approx(1) for k in (1, 2, 5) for e in range(9))


def test_epochs_decide_what_is_drawn() -> None:
    algorithm = MAMLPlusPlus(inner_steps=K, epoch_steps=4, multi_step_epochs=3, first_order_epochs=1)
    problem, keys, batch = Problem(network(), goal="classification"), [TaskKey(0, "train", 0, i) for i in (0, 1)], None
    names = []
    for step in (0, 3, 4, 8, 12):
        noise = algorithm.noise(problem, keys, batch, Phase(step=step))  # type: ignore[arg-type]
        names.append(sorted(noise))
        if STEP_WEIGHTS in noise:
            expected = torch.tensor(step_weights(K, step // 4, 3), dtype=torch.float64)
            assert torch.equal(noise[STEP_WEIGHTS], expected.expand(2, K))
    assert names == [[FIRST_ORDER, STEP_WEIGHTS]] * 2 + [[STEP_WEIGHTS]] * 2 + [[]]
    assert algorithm.noise(problem, keys, batch, Phase(step=0, training=False)) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_without_its_changes_it_is_maml_that_leaves_norms_alone(vectorize: Vectorize) -> None:
    plain = MAML(inner_lr=0.3, inner_steps=K, adapt_only=("0.*", "3.*"))
    expected = meta_gradient(network(), plain, episodes(), vectorize=vectorize)
    found = meta_gradient(network(), MAMLPlusPlus(inner_lr=0.3, inner_steps=K, **OFF), episodes(), vectorize=vectorize)
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    learned = MAMLPlusPlus(inner_lr=0.3, inner_steps=K, **OFF | {"learned_rates": True})
    rates = meta_gradient(network(), learned, episodes(), vectorize=vectorize)
    for name, value in expected.items():
        torch.testing.assert_close(rates[name], value, rtol=1e-12, atol=1e-14)
    assert {n for n in rates if n not in expected} == {f"inner_lr/{n}" for n in expected if not n.startswith("1.")}


def test_the_multi_step_gradient_is_the_sum_of_truncated_ones() -> None:
    algorithm = MAMLPlusPlus(inner_lr=0.3, inner_steps=K, **OFF | {"multi_step_epochs": 4, "epoch_steps": 10})
    found = meta_gradient(network(), algorithm, episodes(), step=15)
    parts = [
        meta_gradient(network(), MAML(inner_lr=0.3, inner_steps=k, adapt_only=("0.*", "3.*")), episodes())
        for k in range(1, K + 1)
    ]
    weights = step_weights(K, 1, 4)
    for name, value in found.items():
        expected = sum(weight * part[name] for weight, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-13)


def test_first_order_epochs_are_fomaml_and_end() -> None:
    algorithm = MAMLPlusPlus(inner_lr=0.3, inner_steps=K, **OFF | {"first_order_epochs": 1, "epoch_steps": 5})
    for step, first_order in ((4, True), (5, False)):
        found = meta_gradient(network(), algorithm, episodes(), step=step)
        maml = MAML(inner_lr=0.3, inner_steps=K, first_order=first_order, adapt_only=("0.*", "3.*"))
        expected = meta_gradient(network(), maml, episodes())
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


# With everything switched on


def made(vectorize: Vectorize, batch_norm: BatchNormPolicy = "transductive", **options: Any) -> tuple[Problem, Learned]:
    """Every step with rates, gain and shift unlike those of the others."""
    model = with_step_norms(convert(network()), K, statistics=True, affine=True)
    problem = Problem(model, goal="classification", vectorize=vectorize, batch_norm=batch_norm, **options)
    learned = ALGORITHM.init(problem, problem.initial_params(), torch.Generator())
    params = {
        name: value + (0.1 if name.startswith("inner_lr/") else 0.3) * draw(*value.shape, seed=i)
        for i, (name, value) in enumerate(learned.params.items())
    }
    return problem, learned._replace(params=params)


ALGORITHM = MAMLPlusPlus(inner_lr=0.3, inner_steps=K)
WEIGHTS = (0.2, 0.3, 0.5)


def shard(problem: Problem, learned: Learned, phase: Phase | None = None) -> Part:
    batch = stack_episodes(episodes())
    noise = {STEP_WEIGHTS: torch.tensor(WEIGHTS, dtype=torch.float64).expand(2, K)}
    return ALGORITHM.contribution(problem, learned, batch, noise=noise, phase=phase or Phase(way=WAY))


def by_hand(params: Params, episode: Episode) -> tuple[Tensor, list[Tensor]]:
    """The outer loss, and the mean that each step's batch norm saw last: nothing of raymeta is used."""
    theta = {n: p for n, p in params.items() if not n.startswith(("inner_lr/", "1."))}
    means: list[Tensor] = []

    def loss(theta: Params, side: Examples, k: int) -> Tensor:
        h = F.linear(side.x, theta["0.weight"], theta["0.bias"])
        means.append(h.mean(0).detach())
        z = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()
        z = torch.tanh(z * params["1.weight"][k] + params["1.bias"][k])
        return F.cross_entropy(F.linear(z, theta["3.weight"], theta["3.bias"]), side.y)

    total, seen = torch.zeros((), dtype=torch.float64), []
    for k in range(K):
        gradient = torch.autograd.grad(loss(theta, episode.support, k), list(theta.values()), create_graph=True)
        theta = {n: t - params[f"inner_lr/{n}"][k] * g for (n, t), g in zip(theta.items(), gradient, strict=True)}
        total = total + WEIGHTS[k] * loss(theta, episode.query, k)
        seen.append(means[-1])  # of the queries, which meet a norm after the support
    return total, seen


@pytest.mark.parametrize("checkpointed", [False, True], ids=["whole", "checkpointed"])
@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_it_is_the_plain_loop(vectorize: Vectorize, checkpointed: bool) -> None:
    problem, learned = made(vectorize, checkpoint_inner_steps=checkpointed)
    found = shard(problem, learned).sums
    params = {n: p.clone().requires_grad_() for n, p in learned.params.items()}
    loss = torch.stack([by_hand(params, episode)[0] for episode in episodes()]).sum()
    gradient = torch.autograd.grad(loss, list(params.values()))
    assert found.keys() == params.keys()
    for name, expected in zip(params, gradient, strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, msg=name)
        assert expected.abs().max() > 1e-4 or name.endswith("0.bias"), "a bias before batch norm has no effect"


def test_every_step_keeps_statistics_of_its_own() -> None:
    problem, learned = made("vmap", "running")
    assert len([name for name in learned.state if name.endswith("running_mean")]) == K
    found = shard(problem, learned).sums
    for k in range(K):
        expected = sum(by_hand_means(learned.params, episode)[k] for episode in episodes())
        torch.testing.assert_close(found[f"1.statistics.{k}.running_mean"], expected, rtol=1e-9, atol=1e-12)
    for k in range(K):  # at test a step uses those of its own
        state = learned.state | {f"1.statistics.{k}.running_mean": torch.full((5,), 9.0).double()}
        batch, phase = stack_episodes(episodes()), Phase(training=False, way=WAY)
        one, other = (
            ALGORITHM.scores(problem, learned._replace(state=s), batch, noise={}, phase=phase)["loss"]
            for s in (learned.state, state)
        )
        same = [torch.equal(one[:, after], other[:, after]) for after in range(K + 1)]
        assert same == [k > 0 and max(0, after - 1) < k for after in range(K + 1)]


def by_hand_means(params: Params, episode: Episode) -> list[Tensor]:
    return by_hand({n: p.clone().requires_grad_() for n, p in params.items()}, episode)[1]


def test_rates_of_later_steps_get_no_gradient() -> None:
    problem, learned = made("vmap")
    batch, phase = stack_episodes(episodes()), Phase(inner_steps=1, way=WAY)
    found = ALGORITHM.contribution(problem, learned, batch, noise={}, phase=phase).sums
    rates = {name: value for name, value in found.items() if name.startswith("inner_lr/")}
    assert all((value[1:] == 0).all() for value in rates.values())
    assert rates["inner_lr/3.weight"][0] != 0


def test_more_steps_than_trained_are_refused() -> None:
    with pytest.raises(ValueError, match="raise inner_steps"):
        MAMLPlusPlus(inner_steps=3, test_inner_steps=4)
    problem, learned = made("vmap")
    with pytest.raises(ConfigError, match="at most 3"):
        shard(problem, learned, Phase(inner_steps=4, way=WAY))
