"""Relation networks: their own loss is what trains, classes are interchangeable, both networks learn."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from equal_bits import last_params, require_equal_bits
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta import Episode, Examples, ProtoNet, RelationNet, meta_gradient
from raymeta.adaptation.problem import Phase, Problem
from raymeta.algorithms.relation import RELATION, relation_loss, relation_module
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.models.layers.beside import Beside
from raymeta.tasks.episodes import stack_episodes

VECTORIZE = ("vmap", "loop")
WAY, SHOT, FEATURES = 3, 4, 5


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episodes(count: int) -> list[Episode]:
    y = torch.arange(WAY).repeat_interleave(SHOT)
    return [Episode(*(Examples(draw(len(y), 4, seed=20 * t + s), y) for s in (0, 1))) for t in range(count)]


def network(relation: nn.Module | None = None) -> Beside:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, FEATURES))
        module = relation_module(FEATURES, 8)
        module.relu = nn.Tanh()  # smooth, for finite differences
        return Beside(body, **{RELATION: relation or module}).double()


def outputs(model: nn.Module, algorithm: raymeta.Algorithm, support: Examples, x: Tensor) -> Tensor:
    problem = Problem(model, goal="classification")
    learned = algorithm.init(problem, problem.initial_params(), torch.Generator())
    adaptation = algorithm.adapt(problem, learned, support, noise={}, phase=Phase(training=False, way=WAY))
    return adaptation.predictors[0](x).detach()


def test_permuted_classes_permute_the_outputs() -> None:
    (episode,), model = episodes(1), network()
    plain = outputs(model, RelationNet(), episode.support, episode.query.x)
    assert ((plain > 0) & (plain < 1)).all()
    for order in permutations(range(WAY)):
        renamed = episode.support._replace(y=torch.tensor(order)[episode.support.y])
        found = outputs(model, RelationNet(), renamed, episode.query.x)
        torch.testing.assert_close(found[:, list(order)], plain, rtol=1e-12, atol=1e-14)


def test_a_distance_as_relation_gives_a_prototypical_network() -> None:
    """g(a, b) = −‖a/K − b‖² on the sum over K shots: the sum is no mean."""

    class Distance(nn.Module):
        def forward(self, both: Tensor) -> Tensor:
            first, second = both.chunk(2, -1)
            return -(first / SHOT - second).square().sum(-1, keepdim=True)

    (episode,), model = episodes(1), network(Distance())
    found = outputs(model, RelationNet(), episode.support, episode.query.x)
    expected = outputs(model, ProtoNet(), episode.support, episode.query.x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_loss_of_equal_relations() -> None:
    """All r = 1/N: (N − 1)/N² for each pair."""
    equal = torch.full((7, WAY), 1 / WAY, dtype=torch.float64)
    assert relation_loss(equal, torch.arange(7) % WAY).item() == pytest.approx((WAY - 1) / WAY**2, rel=1e-12)


def independent_loss(params: dict[str, Tensor], episode: Episode) -> Tensor:
    """The squares pair by pair, in plain loops: no part of raymeta is used."""

    def f(x: Tensor) -> Tensor:
        hidden = torch.tanh(x @ params["body.0.weight"].T + params["body.0.bias"])
        return hidden @ params["body.2.weight"].T + params["body.2.bias"]

    def g(both: Tensor) -> Tensor:
        hidden = torch.tanh(params["relation.linear.weight"] @ both + params["relation.linear.bias"])
        return torch.sigmoid(params["relation.score.weight"] @ hidden + params["relation.score.bias"])

    total = torch.zeros(())
    for x, label in zip(episode.query.x, episode.query.y, strict=True):
        for n in range(WAY):
            own = f(episode.support.x)[episode.support.y == n].sum(0)
            total = total + (g(torch.cat([own, f(x)])) - float(n == label)).square().sum()
    return total / (len(episode.query.y) * WAY)


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_meta_gradient_equals_finite_differences_of_the_squares(vectorize: Any) -> None:
    (episode,), model = episodes(1), network()
    params = {n: p.detach() for n, p in model.named_parameters()}
    gradient = meta_gradient(model, RelationNet(), [episode], vectorize=vectorize)
    assert list(gradient) == list(params)
    for name, value in params.items():
        direction = draw(*value.shape, seed=1)
        ends = [independent_loss(params | {name: value + s * direction}, episode) for s in (1e-5, -1e-5)]
        ours, measured = float((gradient[name] * direction).sum()), float(ends[0] - ends[1]) / 2e-5
        assert ours == pytest.approx(measured, rel=1e-6, abs=1e-9), name


def test_loop_equals_vmap_and_a_loss_of_ones_own_is_taken() -> None:
    for loss in (None, F.cross_entropy):
        both = [meta_gradient(network(), RelationNet(), episodes(3), vectorize=v, loss=loss) for v in VECTORIZE]
        for name, value in both[0].items():
            torch.testing.assert_close(value, both[1][name], rtol=1e-9, atol=1e-11)
    squares = meta_gradient(network(), RelationNet(), episodes(3))
    assert any(not torch.allclose(value, both[0][name]) for name, value in squares.items())


def test_scores_tell_the_loss_that_is_trained() -> None:
    problem, batch = Problem(network(), goal="classification"), stack_episodes(episodes(3))
    algorithm = RelationNet()
    learned = algorithm.init(problem, problem.initial_params(), torch.Generator())
    scores = algorithm.scores(problem, learned, batch, noise={}, phase=Phase(training=False))
    expected = [independent_loss(learned.params, episode) for episode in episodes(3)]
    torch.testing.assert_close(scores["loss"][:, 0], torch.stack(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["transductive", "running"])
def test_bits_and_both_networks_learn(policy: str, local_ray: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tasks": "glyphs", "model": "conv4", "model.width": 4, "batch_norm": policy}
    options |= {"algorithm": "relation", "tasks.shot": 2}
    run = require_equal_bits(tmp_path, **options)
    start = build(load_config(files=[run.path / "config.yaml"]).config).initial.params
    learned = last_params(run)
    still = [name for name, value in start.items() if torch.equal(value, learned[name])]
    assert start.keys() == learned.keys()
    assert {name.partition(".")[0] for name in start} == {"body", "relation"}
    assert still == []
