"""Neural processes: sets as vectors, the bound that the latent one learns by, linear regression as a special case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from draws import answers, draw, shaken
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from raymeta import CNP, NP, Beside, Episode, Examples, TaskKey, meta_gradient
from raymeta.adaptation.embedding import means_of_classes
from raymeta.adaptation.likelihoods import Normals, divergence
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.cnp import DECODER, ENCODER
from raymeta.algorithms.neural_process import LATENT
from raymeta.errors import ConfigError
from raymeta.models.layers.set_encoder import SetEncoder, mean_of_set
from raymeta.tasks.episodes import stack_episodes

FEATURES, WAY = 3, 3
CNPS = CNP(hidden=6, encoder_layers=2, decoder_layers=2)
NPS = NP(hidden=6, latent=4, samples=2, test_samples=5, encoder_layers=2, decoder_layers=2)
NORMAL = {"latent": draw(5, 4, seed=50)}


def problem_of(goal: Any, algorithm: CNP | NP = CNPS) -> Problem:
    outputs = WAY if goal == "classification" else 1
    others = (
        algorithm.networks(FEATURES, outputs, goal) if isinstance(algorithm, CNP) else algorithm.networks(FEATURES, 1)
    )
    return Problem(shaken(Beside(nn.Sequential(nn.Linear(2, FEATURES), nn.Tanh()), **others)), goal=goal)


def examples(goal: str, seed: int, count: int = 6) -> Examples:
    y = torch.arange(count) % WAY if goal == "classification" else draw(count, 1, seed=seed + 100)
    return Examples(draw(count, 2, seed=seed), y)


def learned_of(algorithm: CNP | NP, problem: Problem) -> Learned:
    return algorithm.init(problem, problem.initial_params(), torch.Generator())


CASES = [(CNPS, "classification"), (CNPS, "regression"), (NPS, "regression")]


@pytest.mark.parametrize(("algorithm", "goal"), CASES)
def test_order_and_repetition_of_the_support_do_not_matter(algorithm: Any, goal: str) -> None:
    problem, support, x = problem_of(goal, algorithm), examples(goal, 0), draw(4, 2, seed=1)
    plain = answers(algorithm, problem, support, x, noise=NORMAL, way=WAY)
    for places in (torch.tensor([5, 2, 0, 1, 4, 3]), torch.arange(6).repeat(3)):
        same = Examples(support.x[places], support.y[places])
        torch.testing.assert_close(
            answers(algorithm, problem, same, x, noise=NORMAL, way=WAY), plain, rtol=1e-12, atol=1e-12
        )
    other = support._replace(y=support.y.roll(1, 0))
    assert not torch.allclose(answers(algorithm, problem, other, x, noise=NORMAL, way=WAY), plain)


def test_no_support_is_zero() -> None:
    assert torch.equal(mean_of_set(torch.empty(0, 4)), torch.zeros(4))
    assert torch.equal(SetEncoder(2, 3, 4)(torch.empty(0, 2)), torch.zeros(4))
    codes = draw(3, 2, seed=0)
    means = means_of_classes(codes, torch.tensor([0, 2, 2]), 4)
    torch.testing.assert_close(means, torch.stack([codes[0], 0 * codes[0], codes[1:].mean(0), 0 * codes[0]]))


@pytest.mark.parametrize("goal", ["classification", "regression"])
def test_a_cnp_by_hand(goal: Any) -> None:
    problem, support, x = problem_of(goal), examples(goal, 0), draw(4, 2, seed=1)
    params, body = problem.initial_params(), problem.model.body
    z, q = (body(one).detach() for one in (support.x, x))

    def layers(name: str, value: Tensor) -> Tensor:
        first = torch.relu(value @ params[f"{name}.0.weight"].T + params[f"{name}.0.bias"])
        return first @ params[f"{name}.2.weight"].T + params[f"{name}.2.bias"]

    if goal == "classification":
        codes = layers(ENCODER, z)
        r = torch.cat([codes[support.y == n].mean(0) for n in range(WAY)])
    else:
        r = layers(ENCODER, torch.cat([z, support.y], 1)).mean(0)
    expected = torch.stack([layers(DECODER, torch.cat([row, r])) for row in q])
    torch.testing.assert_close(answers(CNPS, problem, support, x, way=WAY), expected, rtol=1e-12, atol=1e-12)


def test_training_targets_are_support_and_query_and_scores_are_of_queries() -> None:
    problem, episode = problem_of("regression"), Episode(examples("regression", 0, 3), examples("regression", 1, 5))
    learned, (support, query) = learned_of(CNPS, problem), episode
    of_query, of_support = (answers(CNPS, problem, support, side.x) for side in (query, support))
    each = [-Normals().log_likelihood(*pair) for pair in ((of_query, query.y), (of_support, support.y))]
    loss, _ = CNPS.task_loss(problem, learned, episode, noise={}, phase=Phase())
    assert loss.item() == pytest.approx(float(torch.cat(each).mean()), rel=1e-12)
    scores = CNPS.scores(problem, learned, stack_episodes([episode]), noise={}, phase=Phase(training=False))
    assert float(scores["loss"]) == pytest.approx(float(each[0].mean()), rel=1e-12)
    assert float(scores["mse"]) == pytest.approx(float(F.mse_loss(of_query[:, :1], query.y)), rel=1e-12)
    classes = problem_of("classification")
    episode = Episode(examples("classification", 0), examples("classification", 1))
    loss, _ = CNPS.task_loss(classes, learned_of(CNPS, classes), episode, noise={}, phase=Phase(way=WAY))
    logits = answers(CNPS, classes, episode.support, episode.query.x, way=WAY)
    assert loss.item() == pytest.approx(float(F.cross_entropy(logits, episode.query.y)), rel=1e-12)


def test_linear_networks_on_moments_are_linear_regression() -> None:
    """With h(x, y) = (x, y, x², xy) and g that solves from their means, the answer is the least-squares line."""

    class Moments(nn.Module):
        def forward(self, xy: Tensor) -> Tensor:
            x, y = xy[:, :1], xy[:, 1:]
            return torch.cat([x, y, x * x, x * y], 1)

    class Line(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            x, (mean_x, mean_y, square, cross) = rows[:, :1], rows[:, 1:].T
            slope = (cross - mean_x * mean_y) / (square - mean_x.square())
            return torch.cat([mean_y[:, None] + slope[:, None] * (x - mean_x[:, None]), torch.zeros_like(x)], 1)

    model = Beside(nn.Linear(1, 1, bias=False), **{ENCODER: Moments(), DECODER: Line()}).double()
    with torch.no_grad():
        model.body.weight.fill_(1.0)
    support, x = Examples(draw(7, 1, seed=0), draw(7, 1, seed=1)), draw(4, 1, seed=2)
    found = answers(CNPS, Problem(model, goal="regression"), support, x)
    both = torch.cat([support.x, torch.ones(7, 1).double()], 1)
    weights = torch.linalg.lstsq(both, support.y).solution
    expected = torch.cat([x, torch.ones(4, 1).double()], 1) @ weights
    torch.testing.assert_close(found[:, :1], expected, rtol=1e-10, atol=1e-10)


# The latent process


def test_the_divergence_is_that_of_torch() -> None:
    first, second = ((draw(4, seed=s), draw(4, seed=s + 1).exp()) for s in (0, 2))
    expected = kl_divergence(Normal(*first), Normal(*second)).sum()
    torch.testing.assert_close(divergence(first, second), expected, rtol=1e-12, atol=1e-12)
    assert float(divergence(first, first)) == 0


def test_the_bound_by_hand() -> None:
    problem = problem_of("regression", NPS)
    episode = Episode(examples("regression", 0, 3), examples("regression", 1, 4))
    learned, normals = learned_of(NPS, problem), draw(2, 4, seed=9)
    loss, _ = NPS.task_loss(problem, learned, episode, noise={"latent": normals}, phase=Phase())
    model = problem.model

    def latent(side: Examples) -> Normal:
        mean, spread = getattr(model, LATENT)(getattr(model, ENCODER)(torch.cat([model(side.x), side.y], 1))).chunk(2)
        return Normal(mean, 0.1 + 0.9 * spread.sigmoid())

    whole = Examples(torch.cat([s.x for s in episode]), torch.cat([s.y for s in episode]))
    nll = []
    for normal in normals:
        z = latent(whole).mean + latent(whole).stddev * normal
        mean, spread = getattr(model, DECODER)(torch.cat([model(whole.x), z.expand(7, -1)], 1)).chunk(2, 1)
        nll.append(-Normal(mean, 0.1 + 0.9 * F.softplus(spread)).log_prob(whole.y).mean())
    expected = torch.stack(nll).mean() + kl_divergence(latent(whole), latent(episode.support)).sum() / 7
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_prediction_is_a_mixture_over_samples_from_the_support() -> None:
    problem, episode = problem_of("regression", NPS), Episode(examples("regression", 0), examples("regression", 1, 4))
    keys = [TaskKey(0, "test", 0, i) for i in range(2)]
    batch, phase = stack_episodes([episode] * 2), Phase(training=False)
    noise = NPS.noise(problem, keys, batch, phase)
    assert noise["latent"].shape == (2, 5, 4)
    assert NPS.noise(problem, keys, batch, Phase())["latent"].shape == (2, 2, 4)
    assert not torch.equal(*noise["latent"])
    scores = NPS.scores(problem, learned_of(NPS, problem), batch, noise=noise, phase=phase)
    for t in range(2):
        outputs = answers(NPS, problem, episode.support, episode.query.x, noise={"latent": noise["latent"][t]})
        each = [Normals().log_likelihood(one, episode.query.y).exp() for one in outputs.unbind(-1)]
        expected = -torch.stack(each).mean(0).log().mean()
        assert float(scores["loss"][t, 0]) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(("algorithm", "name"), [(CNPS, "cnp"), (NPS, "np")])
def test_a_loss_of_ones_own_is_refused(algorithm: Any, name: str) -> None:
    episode = Episode(examples("regression", 0), examples("regression", 1))
    with pytest.raises(ConfigError, match=f"{name} learns the likelihood"):
        meta_gradient(problem_of("regression", algorithm).model, algorithm, [episode], loss=F.l1_loss)
