"""Meta-Weight-Net: the gradient of the weighting network is that of the clean loss after the look-ahead, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import noisy_labels
import pytest
import torch
from equal_bits import last_params, require_equal_bits
from killing import trained_alone, trained_with_kills
from noisy_labels import FEATURES, NoisyLabels
from one_step import one_step
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta import Episode, MetaWeightNet, TaskKey
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.adaptation.weighted import losses_of
from raymeta.algorithms.meta_weight_net import WEIGHTING, is_weighting, weighting_network
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.errors import ConfigError
from raymeta.models.layers.beside import Beside
from raymeta.tasks.episodes import in_type
from raymeta.tree import Params

SENT = [noisy_labels]
VECTORIZE = ("vmap", "loop")
TASKS = NoisyLabels(way=3, shot=3)
RATE = 0.3
OPTIONS: dict[str, Any] = {"tasks": "noisy_labels:NoisyLabels", "model": "mlp", "model.hidden": [8]}
OPTIONS |= {"algorithm": "meta_weight_net", "algorithm.hidden": 8, "algorithm.weighting_lr": 0.01}


def episodes(count: int = 3) -> list[Episode]:
    return [in_type(torch.float64, TASKS.episode(TaskKey(0, "train", 0, index))) for index in range(count)]


def network() -> Beside:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, TASKS.way))
        module = weighting_network(4)
        module.relu = nn.Tanh()  # smooth, for finite differences
        return Beside(body, **{WEIGHTING: module}).double()


def stepped(algorithm: MetaWeightNet, vectorize: Any = "vmap", *, params: Params | None = None, **options: Any) -> Any:
    return one_step(algorithm, network(), episodes(), RATE, vectorize, params=params, **options)


# Plain autograd: no part of raymeta is used


def outputs(params: Params, x: Tensor) -> Tensor:
    hidden = torch.tanh(x @ params["body.0.weight"].T + params["body.0.bias"])
    return hidden @ params["body.2.weight"].T + params["body.2.bias"]


def weights_of(params: Params, losses: Tensor) -> Tensor:
    hidden = torch.tanh(losses[:, None] @ params["weighting.linear.weight"].T + params["weighting.linear.bias"])
    return torch.sigmoid(hidden @ params["weighting.score.weight"].T + params["weighting.score.bias"])[:, 0]


def descended(params: Params, *, normalize: bool) -> Params:
    """The classifier after a plain gradient step on the weighted losses of all support examples."""
    own = {name: value.clone().requires_grad_() for name, value in params.items() if not is_weighting(name)}
    x, y = (torch.cat([getattr(episode.support, part) for episode in episodes()]) for part in ("x", "y"))
    losses = F.cross_entropy(outputs(own, x), y, reduction="none")
    weights = weights_of(params, losses.detach())
    loss = (weights * losses).sum() / (weights.sum() if normalize else len(y))
    gradients = torch.autograd.grad(loss, list(own.values()))
    return {name: (value - RATE * g).detach() for (name, value), g in zip(own.items(), gradients, strict=True)}


def clean_loss(params: Params, *, normalize: bool) -> float:
    """The mean clean loss after the look-ahead, as a function of the weighting network's parameters."""
    ahead = descended(params, normalize=normalize)
    return float(sum(F.cross_entropy(outputs(ahead, e.query.x), e.query.y) for e in episodes())) / len(episodes())


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("normalize", [True, False])
def test_the_weighting_networks_gradient_equals_finite_differences(normalize: bool, vectorize: Any) -> None:
    outer, params = stepped(MetaWeightNet(normalize=normalize), vectorize)
    first, second = outer.updates
    assert set(first) == {name for name in params if is_weighting(name)}
    assert set(second) == {name for name in params if not is_weighting(name)}
    for name, gradient in first.items():
        generator = torch.Generator().manual_seed(1)
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        ends = [clean_loss(params | {name: params[name] + s * direction}, normalize=normalize) for s in (1e-4, -1e-4)]
        assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6, abs=1e-11)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_classifier_steps_with_the_new_weights(normalize: bool) -> None:
    outer, params = stepped(MetaWeightNet(normalize=normalize, weighting_lr=0.5))
    new = {name: value for name, value in outer.params.items() if is_weighting(name)}
    assert not any(torch.equal(value, params[name]) for name, value in new.items())
    expected = descended(params | new, normalize=normalize)
    for name, value in expected.items():
        torch.testing.assert_close(outer.params[name], value, rtol=1e-11, atol=1e-13)
        assert not torch.allclose(descended(params, normalize=normalize)[name], value, rtol=1e-6)


def test_the_look_ahead_is_plain_whatever_the_outer_optimiser() -> None:
    plain, _ = stepped(MetaWeightNet())
    for options in ({"optimizer": "adam"}, {"momentum": 0.9, "weight_decay": 0.1}):
        other, _ = stepped(MetaWeightNet(), **options)
        for name, value in plain.updates[0].items():
            assert torch.equal(other.updates[0][name], value)


def test_equal_weights_are_plain_gradient_descent() -> None:
    """A weighting network that does not look at losses: normalised, its weights are those of a mean."""
    flat = {"weighting.score.weight": torch.zeros(1, 4, dtype=torch.float64)}
    outer, params = stepped(MetaWeightNet(weighting_lr=1e-300), params=flat)
    own = {name: value.clone().requires_grad_() for name, value in params.items() if not is_weighting(name)}
    x, y = (torch.cat([getattr(episode.support, part) for episode in episodes()]) for part in ("x", "y"))
    gradients = torch.autograd.grad(F.cross_entropy(outputs(own, x), y), list(own.values()))
    for (name, value), g in zip(own.items(), gradients, strict=True):
        torch.testing.assert_close(outer.params[name], value - RATE * g, rtol=1e-11, atol=1e-13)
    assert all(abs(float(value.sum())) < 1e-14 for value in (outer.updates[0]["weighting.score.bias"],))


def test_weights_of_one_are_plain_gradient_descent_without_normalising() -> None:
    ones = {"weighting.score.weight": torch.zeros(1, 4, dtype=torch.float64)}
    ones |= {"weighting.score.bias": torch.full((1,), 50.0, dtype=torch.float64)}
    outer, params = stepped(MetaWeightNet(weighting_lr=1e-300, normalize=False), params=ones)
    expected = descended(params | ones, normalize=True)
    for name, value in expected.items():
        torch.testing.assert_close(outer.params[name], value, rtol=1e-11, atol=1e-13)


def test_equal_losses_have_equal_weights() -> None:
    problem = Problem(network(), goal="classification")
    learned = Learned(problem.initial_params(), {})
    one, other, same = MetaWeightNet().weights(problem, learned, torch.tensor([0.5, 2.0, 0.5], dtype=torch.float64))
    assert one == same
    assert one != other


def test_loop_equals_vmap() -> None:
    both = [stepped(MetaWeightNet(weighting_lr=0.1), v)[0].params for v in VECTORIZE]
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=1e-9, atol=1e-11)


def test_running_statistics_are_refused() -> None:
    problem = Problem(network(), goal="classification", batch_norm="running")
    with pytest.raises(ConfigError, match="several times a step"):
        MetaWeightNet().init(problem, problem.initial_params(), torch.Generator())


# Whole runs


@pytest.mark.slow
def test_bits(by_value: None, tmp_path: Path) -> None:
    run = require_equal_bits(tmp_path, **OPTIONS)
    start = build(load_config(files=[run.path / "config.yaml"], trust=True).config).initial.params
    learned = last_params(run)
    assert start.keys() == learned.keys()
    assert not any(torch.equal(value, learned[name]) for name, value in start.items())


@pytest.mark.parametrize("function", ["clean_gradient", pytest.param("slopes", marks=pytest.mark.slow)])
def test_a_worker_killed_inside_a_step_changes_nothing(function: str, by_value: None, tmp_path: Path) -> None:
    sizes = {"meta_batch_size": 8, "shard_size": 2, "steps": 5, "validate_every": 0, "test_episodes": 2}
    config = load_config(overrides={**OPTIONS, **sizes, "device": "cpu"}).config
    expected, asked = trained_alone(config, tmp_path / "quiet")
    found, maps, events = trained_with_kills(config, tmp_path / "killed", lambda so_far: so_far[-1] == (2, function))
    assert found == expected
    assert maps == asked
    assert [function for _, function in asked] == [
        "weighted_gradient",
        "clean_gradient",
        "slopes",
        "weighted_gradient",
    ] * 5
    assert events == ["worker_lost"]


def test_right_labels_get_larger_weights_than_wrong_ones(tmp_path: Path) -> None:
    sizes = {"meta_batch_size": 4, "shard_size": 4, "steps": 60, "validate_every": 0, "test_episodes": 50}
    run = raymeta.meta_train(output=str(tmp_path), **{**OPTIONS, **sizes, "algorithm.weighting_lr": 0.03})
    config = load_config(files=[run.path / "config.yaml"], trust=True).config
    problem, algorithm = build(config).blueprint.problem(), config.algorithm
    learned = Learned(last_params(run), {})
    support = config.tasks.episode(TaskKey(1, "train", 0, 0)).support
    losses = losses_of(problem, learned, learned.params, support, Phase(way=4)).detach()
    weights = algorithm.weights(problem, learned, losses).detach()
    right = support.y == support.class_id
    assert weights[right].mean() > 2 * weights[~right].mean()
