"""LEO: a step of the latents is a preconditioned step of the weights; all of it beside a plain loop of autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta import LEO, Beside, Episode, Examples, Learned, Phase, Problem, TaskKey
from raymeta.adaptation.problem import Vectorize
from raymeta.algorithms.leo import Normal, correlation_penalty, deviation, divergence, networks
from raymeta.tasks.episodes import stack_episodes
from raymeta.tree import Params

WAY, FEATURES, LATENTS = 3, 4, 2


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episodes(count: int = 2) -> list[Episode]:
    y = torch.arange(WAY).repeat_interleave(2)
    return [Episode(*(Examples(draw(6, 5, seed=20 * t + s), y) for s in (0, 1))) for t in range(count)]


def made(vectorize: Vectorize = "vmap", **options: Any) -> tuple[LEO, Problem, Learned]:
    algorithm = LEO(num_latents=LATENTS, latent_steps=2, weight_steps=2, **options)
    model = Beside(nn.Sequential(nn.Linear(5, FEATURES), nn.Tanh()), **networks(FEATURES, LATENTS)).double()
    problem = Problem(model, goal="classification", vectorize=vectorize)
    learned = algorithm.init(problem, problem.initial_params(), torch.Generator())
    params = {n: 0.6 * draw(*p.shape, seed=i) for i, (n, p) in enumerate(learned.params.items())}
    return algorithm, problem, learned._replace(params=params)


def by_hand(algorithm: LEO, params: Params, episode: Episode, noise: Params) -> Tensor:
    """The outer loss from the paper's equations: nothing of raymeta is used."""

    def features(x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, params["body.0.weight"], params["body.0.bias"]))

    def relation(pair: Tensor) -> Tensor:
        h = (pair @ params["relation.linear1.weight"].T).relu()
        h = (h @ params["relation.linear2.weight"].T).relu()
        return h @ params["relation.linear3.weight"].T

    def decode(z: Tensor, k: int) -> Tensor:
        out = z @ params["decoder.weight"].T
        std = (out[:, FEATURES:].exp() - 1 + math.sqrt(2 / (FEATURES + WAY))).clamp(min=1e-10)
        return out[:, :FEATURES] + std * noise["weights"][k]

    y, f = episode.support.y, features(episode.support.x)
    codes = (f * noise["dropout"]) @ params["encoder.weight"].T
    means = []
    for n in range(WAY):
        own = [torch.stack([relation(torch.cat([codes[i], c])) for c in codes]).mean(0) for i in range(6) if y[i] == n]
        means.append(torch.stack(own).mean(0))
    mean, spread = torch.stack(means).split(LATENTS, 1)
    std = (spread.exp() - 1).clamp(min=1e-10)
    first = z = mean + std * noise["latents"]
    for k in range(2):
        (slope,) = torch.autograd.grad(F.cross_entropy(f @ decode(z, k).T, y), z, create_graph=True)
        z = z - params["inner_lr/latents"] * slope
    w = decode(z, 2)
    for _ in range(2):
        (slope,) = torch.autograd.grad(F.cross_entropy(f @ w.T, y), w, create_graph=True)
        w = w - params["inner_lr/weights"] * slope
    normal, standard = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    rows = params["decoder.weight"].T
    cosines = torch.stack([torch.stack([F.cosine_similarity(a, b, dim=0) for a in rows]) for b in rows])
    own = [p for n, p in params.items() if n.split(".")[0] in ("encoder", "relation", "decoder")]
    return (
        F.cross_entropy(features(episode.query.x) @ w.T, episode.query.y)
        + algorithm.kl_weight * torch.distributions.kl_divergence(normal, standard).mean()
        + algorithm.encoder_weight * (z.detach() - first).square().mean()
        + algorithm.l2_weight * sum((p**2).sum() for p in own)
        + algorithm.orthogonality_weight * (cosines - torch.eye(LATENTS)).square().mean()
    )


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_it_is_the_plain_loop(vectorize: Vectorize) -> None:
    weights = {"kl_weight": 0.3, "encoder_weight": 0.7, "l2_weight": 0.01, "orthogonality_weight": 0.4}
    algorithm, problem, learned = made(vectorize, **weights)
    batch, phase = stack_episodes(episodes()), Phase(way=WAY)
    noise = algorithm.noise(problem, [TaskKey(0, "train", 0, i) for i in (0, 1)], batch, phase)
    assert 0 < (noise["dropout"] == 0).sum() < noise["dropout"].numel()
    found = algorithm.contribution(problem, learned, batch, noise=noise, phase=phase).sums
    params = {n: p.clone().requires_grad_() for n, p in learned.params.items()}
    losses = [by_hand(algorithm, params, e, {n: v[t] for n, v in noise.items()}) for t, e in enumerate(episodes())]
    gradient = torch.autograd.grad(torch.stack(losses).sum(), list(params.values()))
    for name, expected in zip(params, gradient, strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, msg=name)
        assert expected.abs().max() > 1e-6, name


def logits(algorithm: LEO, problem: Problem, learned: Learned) -> list[Tensor]:
    support, query = episodes(1)[0]
    adaptation = algorithm.adapt(problem, learned, support, noise={}, phase=Phase(training=False, way=WAY))
    return [predict(query.x) for predict in adaptation.predictors]


def test_a_step_of_the_latents_is_a_preconditioned_step_of_the_weights() -> None:
    """θ' = θ − η W Wᵀ ∇L_S(θ), with θ decoded by W."""
    algorithm, problem, learned = made()
    learned.params["inner_lr/latents"].fill_(0.7)
    support, query = episodes(1)[0]
    f_S, f_Q = (problem.forward(learned, side.x, Phase()) for side in (support, query))
    before, after = logits(algorithm, problem, learned)[:2]
    theta = torch.linalg.lstsq(f_Q, before).solution.T.requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(f_S @ theta.T, support.y), theta)
    decoder = learned.params["decoder.weight"][:FEATURES]
    torch.testing.assert_close(after, f_Q @ (theta - 0.7 * slope @ decoder @ decoder.T).T, rtol=1e-9, atol=1e-11)


def test_without_decoder_and_latent_steps_it_is_descent_from_zero() -> None:
    algorithm, problem, learned = made()
    learned.params["decoder.weight"].zero_()
    support, query = episodes(1)[0]
    f_S, f_Q = (problem.forward(learned, side.x, Phase()) for side in (support, query))
    weights = torch.zeros(WAY, FEATURES, dtype=torch.float64)
    expected = [f_Q @ weights.T] * 3  # two steps of the latents change nothing
    for _ in range(2):
        at = weights.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(f_S @ at.T, support.y), at)
        weights = weights - learned.params["inner_lr/weights"] * slope
        expected.append(f_Q @ weights.T)
    torch.testing.assert_close(logits(algorithm, problem, learned), expected, rtol=1e-11, atol=1e-13)


def test_fewer_steps_are_the_first_ones() -> None:
    algorithm, problem, learned = made()
    support, query = episodes(1)[0]
    phase = Phase(training=False, inner_steps=3, way=WAY)
    adaptation = algorithm.adapt(problem, learned, support, noise={}, phase=phase)
    found = [predict(query.x) for predict in adaptation.predictors]
    torch.testing.assert_close(found, logits(algorithm, problem, learned)[:4])


def test_deviations_divergence_and_correlations() -> None:
    spread = torch.tensor([-3.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(deviation(spread, 0.0), torch.tensor([1e-10, 1e-10, math.e - 1]).double())
    torch.testing.assert_close(deviation(spread, 0.5)[1:], torch.tensor([0.5, math.e - 0.5]).double())
    standard = Normal(torch.zeros(2), torch.ones(2))
    assert divergence(standard) == 0
    assert divergence(Normal(torch.tensor([2.0]), torch.ones(1))) == 2
    assert correlation_penalty(5 * torch.eye(3)) == 0
    assert correlation_penalty(torch.ones(2, 3)) == pytest.approx(0.5)
