"""MAML for policies, held against an independent loop, and a policy gradient that is known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raymeta import MAMLRL, Episode, Examples, Learned, Phase, Problem
from raymeta.algorithms.maml_rl import LOG_STD
from raymeta.tasks.navigation import MOST

N, H = 5, 4


def made(**options: float) -> tuple[MAMLRL, Problem, Learned]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    algorithm = MAMLRL(trajectories=N, horizon=H, inner_lr=0.05, init_std=0.3, **options)  # type: ignore[arg-type]
    problem = Problem(model, goal="regression", vectorize="loop")
    return algorithm, problem, algorithm.init(problem, problem.initial_params(), torch.Generator())


GOAL = torch.tensor([0.3, -0.2]).double()
EPISODE = Episode(*[Examples(GOAL[None], torch.zeros(1, 2).double())] * 2)


def normals(policies: int, n: int = N, h: int = H) -> Tensor:
    return torch.randn(policies, n, h, 2, generator=torch.Generator().manual_seed(1)).double()


def by_hand(model: nn.Module, theta: dict[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
    """(surrogate, mean return) of one policy, step by step and trajectory by trajectory."""
    own = {name: value for name, value in theta.items() if name != LOG_STD}
    log_probs, rewards = torch.zeros(N, H).double(), torch.zeros(N, H).double()
    rows = []
    for n in range(N):
        position, row = torch.zeros(2).double(), []
        for t in range(H):
            mean = torch.func.functional_call(model, own, (position[None],))[0]
            action = (mean + theta[LOG_STD].exp() * noise[n, t]).detach()
            normal = torch.distributions.Normal(mean, theta[LOG_STD].exp())
            row.append(normal.log_prob(action).sum() + torch.log(torch.tensor(2 * torch.pi)))
            position = (position + action.clamp(-MOST, MOST)).detach()
            rewards[n, t] = -((position - GOAL) ** 2).sum()
        rows.append(torch.stack(row))
    log_probs = torch.stack(rows)
    to_go = torch.stack([sum(0.99 ** (k - t) * rewards[:, k] for k in range(t, H)) for t in range(H)], 1)  # type: ignore[misc]
    advantage = to_go - to_go.mean(0)
    advantage = advantage / (advantage.square().mean().sqrt() + 1e-8)
    return -(log_probs * advantage).sum(1).mean(), rewards.sum(1).mean()


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_meta_gradient_is_that_of_an_independent_loop(inner_steps: int) -> None:
    algorithm, problem, learned = made(inner_steps=inner_steps)
    noise = normals(inner_steps + 1)
    params = {name: value.clone().requires_grad_() for name, value in learned.params.items()}
    theta = dict(params)
    for k in range(inner_steps):
        loss, _ = by_hand(problem.model, theta, noise[k])
        gradient = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {n: v - 0.05 * g for (n, v), g in zip(theta.items(), gradient, strict=True)}
    loss, mean_return = by_hand(problem.model, theta, noise[-1])
    expected = torch.autograd.grad(loss, list(params.values()))
    part = algorithm.task_gradient(problem, learned, EPISODE, noise={"actions": noise}, phase=Phase())
    for (name, found), slope in zip(part.sums.items(), expected, strict=True):
        torch.testing.assert_close(found, slope, msg=name)
    torch.testing.assert_close(part.metrics["train/query_loss"], -mean_return.detach())


def test_the_surrogate_of_one_moment_is_the_slope_of_the_expected_reward() -> None:
    """One step inside of the cut: E[r] = −‖μ − g‖² − 2σ², whose slope in μ is 2(g − μ); advantages are scaled by the
    deviation of the rewards."""
    algorithm, problem, learned = made()
    algorithm = MAMLRL(trajectories=200_000, horizon=1, inner_lr=0.0, init_std=0.005)
    params = {name: torch.zeros_like(value) for name, value in learned.params.items()}
    params[LOG_STD] = torch.full((2,), 0.005).double().log()
    noise = {"actions": normals(2, n=200_000, h=1)}
    part = algorithm.task_gradient(problem, Learned(params, {}), EPISODE, noise=noise, phase=Phase())
    slope = -part.sums["2.bias"]  # of the surrogate's negative
    expected = 2 * GOAL / (2 * GOAL.norm() * 0.005)  # the deviation of r is 2σ‖g‖ to first order in σ
    torch.testing.assert_close(slope, expected, rtol=0.02, atol=0.5)


def test_returns_before_and_after_are_the_scores() -> None:
    algorithm, problem, learned = made()
    noise = normals(2)
    batch = Episode(*(Examples(side.x[None], side.y[None]) for side in EPISODE))
    phase = Phase(training=False)
    scores = algorithm.scores(problem, learned, batch, noise={"actions": noise[None]}, phase=phase)
    assert scores["return"].shape == (1, 2)
    _, before = by_hand(problem.model, learned.params, noise[0])
    torch.testing.assert_close(scores["return"][0, 0], before)
