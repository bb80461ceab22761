"""PFN: what a query sees, what it is trained on, and the posterior that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from draws import answers, draw, shaken
from equal_bits import last_params, require_equal_bits
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta import PFN, Beside, Episode, Examples, meta_gradient
from raymeta.adaptation.likelihoods import Bars
from raymeta.adaptation.problem import Phase, Problem
from raymeta.algorithms.pfn import READER, standardized
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.errors import ConfigError
from raymeta.models.layers.in_context import attention
from raymeta.tasks.episodes import stack_episodes

SMALL = PFN(width=8, depth=2, heads=2, bars=5)
BARS = Bars(torch.linspace(-2, 2, 6, dtype=torch.float64))
WAY, SHOT, FEATURES = 3, 2, 4
KINDS = ("classification", "regression")


def problem_of(goal: Any, algorithm: PFN = SMALL) -> Problem:
    reader = algorithm.reader(FEATURES, WAY) if goal == "classification" else algorithm.reader(FEATURES, 1, BARS)
    return Problem(shaken(Beside(nn.Sequential(nn.Linear(4, FEATURES), nn.Tanh()), **{READER: reader})), goal=goal)


def examples(goal: str, seed: int, count: int = WAY * SHOT) -> Examples:
    y = torch.arange(count) % WAY if goal == "classification" else draw(count, 1, seed=seed + 100)
    return Examples(draw(count, 4, seed=seed), y)


@pytest.mark.parametrize("goal", KINDS)
def test_the_order_of_the_support_does_not_matter(goal: str) -> None:
    problem, support, x = problem_of(goal), examples(goal, 0), draw(5, 4, seed=1)
    plain = answers(SMALL, problem, support, x, way=WAY)
    order = torch.randperm(len(support.y), generator=torch.Generator().manual_seed(0))
    permuted = Examples(support.x[order], support.y[order])
    torch.testing.assert_close(answers(SMALL, problem, permuted, x, way=WAY), plain, rtol=1e-12, atol=1e-12)
    other = support._replace(y=support.y.roll(1, 0))
    assert not torch.allclose(answers(SMALL, problem, other, x, way=WAY), plain)


@pytest.mark.parametrize("goal", KINDS)
def test_queries_do_not_see_each_other(goal: str) -> None:
    problem, support, x = problem_of(goal), examples(goal, 0), draw(5, 4, seed=1)
    plain = answers(SMALL, problem, support, x, way=WAY)
    for some in ([0], [3, 1], [4, 4, 4, 2]):
        torch.testing.assert_close(
            answers(SMALL, problem, support, x[some], way=WAY), plain[some], rtol=1e-12, atol=1e-12
        )


def test_a_permuted_binding_of_labels_permutes_nothing_else() -> None:
    """With the embedding and the outputs of classes permuted in the same way, so are the answers."""
    problem, support, x = problem_of("classification"), examples("classification", 0), draw(5, 4, seed=1)
    plain = answers(SMALL, problem, support, x, way=WAY)
    order = torch.tensor([2, 0, 1])
    reader: Any = problem.model.get_submodule(READER)
    with torch.no_grad():
        reader.of_y.weight.copy_(reader.of_y.weight[:, order.argsort()].clone())
        for values in (reader.outputs.weight, reader.outputs.bias):
            values.copy_(values[order.argsort()].clone())
    renamed = support._replace(y=order[support.y])
    torch.testing.assert_close(answers(SMALL, problem, renamed, x, way=WAY)[:, order], plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("goal", KINDS)
def test_the_loss_is_the_likelihood_of_the_queries(goal: Any) -> None:
    problem, episode = problem_of(goal), Episode(examples(goal, 0), examples(goal, 1, 5))
    outputs = answers(SMALL, problem, episode.support, episode.query.x, way=WAY)
    expected = F.cross_entropy(outputs, episode.query.y) if goal == KINDS[0] else BARS.nll(outputs, episode.query.y)
    learned = SMALL.init(problem, problem.initial_params(), torch.Generator())
    loss, _ = SMALL.task_loss(problem, learned, episode, noise={}, phase=Phase(way=WAY))
    assert loss.item() == pytest.approx(float(expected), rel=1e-12)
    scores = SMALL.scores(problem, learned, stack_episodes([episode]), noise={}, phase=Phase(training=False))
    assert float(scores["loss"]) == pytest.approx(float(expected), rel=1e-12)
    if goal == "regression":
        squares = (BARS.point(outputs) - episode.query.y).square().mean()
        assert float(scores["mse"]) == pytest.approx(float(squares), rel=1e-12)


def test_standardized_features_are_those_of_the_support() -> None:
    support, x = draw(6, 4, seed=0), draw(3, 4, seed=1)
    z, q = standardized(support, x)
    torch.testing.assert_close(z.mean(0), torch.zeros(4).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(4).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(q, (x - support.mean(0)) / support.std(0, correction=0), rtol=1e-5, atol=1e-6)
    moved = standardized(5 * support - 3, 5 * x - 3)
    torch.testing.assert_close(moved[1], q, rtol=1e-5, atol=1e-6)
    assert torch.equal(standardized(torch.ones(3, 2), torch.ones(3, 2))[1], torch.zeros(3, 2))
    tables, problem = PFN(width=8, depth=2, heads=2, bars=5, standardize=True), problem_of("classification")
    scaled = answers(tables, problem, examples("classification", 0), x, way=WAY)
    assert not torch.allclose(scaled, answers(SMALL, problem, examples("classification", 0), x, way=WAY))


def test_attention_is_that_of_torch() -> None:
    query, key, value = draw(2, 5, 3, seed=0), draw(2, 4, 3, seed=1), draw(2, 4, 3, seed=2)
    mask = draw(5, 4, seed=3) > 0
    mask[:, 0] = True
    for one in (None, mask):
        expected = F.scaled_dot_product_attention(query, key, value, attn_mask=one)
        torch.testing.assert_close(attention(query, key, value, one), expected, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_told_is_refused() -> None:
    model = problem_of("regression").model
    episode = Episode(examples("regression", 0), examples("regression", 1))
    with pytest.raises(ConfigError, match="leave loss out"):
        meta_gradient(model, SMALL, [episode], loss=F.l1_loss)
    with pytest.raises(ValueError, match="width 9 is no multiple of heads 2"):
        PFN(width=9, heads=2)
    with pytest.raises(ConfigError, match="pfn tells one target by bars, and these tasks have 2"):
        build(load_config(overrides={"algorithm": "pfn", "tasks": "navigation", "model": "mlp"}).config)


@pytest.mark.slow
def test_borders_are_quantiles_of_the_prior_and_stay(tmp_path: Path, local_ray: Any) -> None:
    options: dict[str, Any] = {
        "tasks": "gaussian_process",
        "tasks.noise": [0.1, 0.1],
        "model": "mlp",
        "model.hidden": [],
    }
    options |= {"algorithm": "pfn", "algorithm.width": 8, "algorithm.bars": 10, "algorithm.depth": 1}
    run = require_equal_bits(tmp_path, **options)
    built = build(load_config(files=[run.path / "config.yaml"]).config)
    borders = built.fixed[f"{READER}.borders"]
    known = torch.distributions.Normal(0.0, 1.01**0.5).icdf(torch.arange(1, 10) / 10)
    torch.testing.assert_close(borders[1:-1], known, rtol=0, atol=0.15)
    assert f"{READER}.borders" not in last_params(run)


@pytest.mark.slow
def test_a_coin_is_the_posterior_mean_of_its_rate() -> None:
    """Rates ~ Beta(2, 2), classes 0 and 1: the answer after h heads of n throws must be (h + 2)/(n + 4)."""
    algorithm = PFN(width=16, depth=2, heads=2)
    torch.manual_seed(0)
    model = Beside(nn.Identity(), **{READER: algorithm.reader(1, 2)})
    problem = Problem(model, goal="classification")
    generator, beta = torch.Generator().manual_seed(0), torch.distributions.Beta(2.0, 2.0)
    params = [p.requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.Adam(params, lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    throws = 5

    def task() -> tuple[Tensor, Tensor]:
        rates = beta.sample((256, 1))
        y = (torch.rand(256, throws + 1, generator=generator) < rates).long()
        return y[:, :throws], y[:, throws:]

    def told(support_y: Tensor) -> Tensor:
        blank = torch.zeros(throws, 1)
        labels = torch.nn.functional.one_hot(support_y, 2).float()
        return torch.vmap(lambda y: problem.model.get_submodule(READER)(blank, y, blank[:1]))(labels)[:, 0]

    for _ in range(1500):
        support_y, query_y = task()
        loss = F.cross_entropy(told(support_y), query_y[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    heads = torch.tril(torch.ones(throws + 1, throws), -1).long()
    found = told(heads).softmax(1)[:, 1].detach()
    expected = (torch.arange(throws + 1) + 2) / (throws + 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
