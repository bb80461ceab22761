"""L2RW: weights by the derivative through a virtual step are those of inner products, and both are plain autograd's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noisy_labels import FEATURES, NoisyLabels
from one_step import one_step
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta import L2RW, Episode, Plain, TaskKey
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.errors import ConfigError
from raymeta.runs import layout
from raymeta.tasks.episodes import Examples, in_type
from raymeta.tree import Params
from raymeta.views.pages.run import run_figures
from raymeta.views.sources.run import RunSource

TASKS = NoisyLabels(way=3, shot=3)
RATE = 0.3
VECTORIZE = ("vmap", "loop")


def episodes(count: int = 3) -> list[Episode]:
    return [in_type(torch.float64, TASKS.episode(TaskKey(0, "train", 0, index))) for index in range(count)]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, TASKS.way)).double()


def outputs(params: Params, x: Tensor) -> Tensor:
    return torch.tanh(x @ params["0.weight"].T + params["0.bias"]) @ params["2.weight"].T + params["2.bias"]


def joined(side: str) -> Examples:
    parts = [getattr(episode, side) for episode in episodes()]
    return Examples(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))


def weights_through_a_step(params: Params, rate: float) -> Tensor:
    """max(0, −∂L_clean(w − rate Σ ε_i ∇f_i) / ∂ε_i), by autograd alone."""
    own = {name: value.clone().requires_grad_() for name, value in params.items()}
    support, query = joined("support"), joined("query")
    shares = torch.zeros(len(support.y), dtype=torch.float64, requires_grad=True)
    losses = F.cross_entropy(outputs(own, support.x), support.y, reduction="none")
    gradients = torch.autograd.grad((shares * losses).sum(), list(own.values()), create_graph=True)
    ahead = {name: own[name] - rate * g for name, g in zip(own, gradients, strict=True)}
    (slope,) = torch.autograd.grad(F.cross_entropy(outputs(ahead, query.x), query.y), shares)
    return (-slope).clamp(min=0)


def expected(params: Params) -> Params:
    """The gradient that the paper steps along."""
    weights = weights_through_a_step(params, RATE)
    own = {name: value.clone().requires_grad_() for name, value in params.items()}
    support = joined("support")
    losses = F.cross_entropy(outputs(own, support.x), support.y, reduction="none")
    gradients = torch.autograd.grad((weights * losses).sum() / weights.sum(), list(own.values()))
    return dict(zip(own, gradients, strict=True))


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("exact", [True, False])
def test_a_step_is_the_papers(exact: bool, vectorize: Any) -> None:
    outer, params = one_step(L2RW(exact=exact), network(), episodes(), RATE, vectorize)
    (found,) = outer.updates
    for name, value in expected(params).items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(outer.params[name], params[name] - RATE * value, rtol=1e-11, atol=1e-13)


def test_inner_products_are_the_derivative_through_the_step() -> None:
    both = [one_step(L2RW(exact=exact), network(), episodes(), RATE)[0].updates[0] for exact in (True, False)]
    for name, value in both[0].items():
        torch.testing.assert_close(both[1][name], value, rtol=1e-12, atol=1e-14)


def test_some_examples_count_and_others_do_not() -> None:
    """Else the laws above would hold of plain training, too."""
    weights = weights_through_a_step(network_params(), RATE)
    assert 0 < int((weights > 0).sum()) < len(weights)


def test_weights_that_are_told_are_those_of_the_step() -> None:
    """Of the step whose only task is the one that is asked about."""
    (episode,) = episodes(1)
    outer, params = one_step(L2RW(), network(), [episode], RATE)
    problem = Problem(network(), goal="classification")
    losses, weights = L2RW().weigh(problem, Learned(params, {}), episode, phase=Phase())
    own = {name: value.clone().requires_grad_() for name, value in params.items()}
    each = F.cross_entropy(outputs(own, episode.support.x), episode.support.y, reduction="none")
    torch.testing.assert_close(losses, each.detach(), rtol=1e-12, atol=1e-14)
    gradients = torch.autograd.grad((weights * each).sum() / weights.sum(), list(own.values()))
    for name, value in zip(own, gradients, strict=True):
        torch.testing.assert_close(outer.updates[0][name], value, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("algorithm", "weighs"), [("l2rw", True), ("meta_weight_net", True), ("plain", False)])
def test_a_run_tells_what_training_examples_weigh(algorithm: str, weighs: bool, tmp_path: Path) -> None:
    run = raymeta.meta_train(
        algorithm=algorithm, tasks="classification", model="mlp", steps=2, meta_batch_size=2, validate_every=0,
        output=str(tmp_path), **{"tasks.classes": 4, "tasks.drawers": 30, "tasks.noise": "uniform_flip"},
    )  # fmt: skip
    source = RunSource(run.path)
    assert ("weight_by_loss" in run_figures(source)) is weighs
    if weighs:
        rows = source.weights
        assert len(rows["loss"]) == len(rows["weight"]) == len(rows["wrong"]) >= 400
        assert np.mean(rows["weight"]) == pytest.approx(1)
        assert 0.2 < np.mean(rows["wrong"]) < 0.6
        names = [trace["name"] for trace in run_figures(source)["weight_by_loss"]["data"]]
        assert names == ["right label", "wrong label"]
        (run.path / layout.WEIGHTS).write_text('{"loss": [1], "weight": ["x"], "wrong": [true]}')
        assert RunSource(run.path).weights == {}


def network_params() -> Params:
    return {name: value.detach() for name, value in network().named_parameters()}


@pytest.mark.parametrize("exact", [True, False])
def test_where_no_example_helps_nothing_moves(exact: bool) -> None:
    """The training image is the clean one with the wrong one of two labels: its gradient is against the clean one."""
    x = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = torch.tensor([0, 1, 0, 1])
    one = Episode(Examples(x[:1], 1 - y[:1]), Examples(x[:1], y[:1]))
    module = nn.Sequential(nn.Linear(FEATURES, 2)).double()
    outer, params = one_step(L2RW(exact=exact), module, [one], RATE)
    for name, value in params.items():
        assert torch.equal(outer.params[name], value)


def test_kept_statistics_are_refused() -> None:
    for policy in ("running", "support"):
        problem = Problem(network(), goal="classification", batch_norm=policy)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="several times a step"):
            L2RW().init(problem, problem.initial_params(), torch.Generator())
    problem = Problem(network(), goal="classification", batch_norm="support")
    with pytest.raises(ConfigError, match="batches of examples"):
        Plain().init(problem, problem.initial_params(), torch.Generator())
