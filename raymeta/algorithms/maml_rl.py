"""MAML for policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.descent import descend, steps_in
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import ScoredAlgorithm
from raymeta.keys import TaskKey
from raymeta.options import STRICT
from raymeta.tasks.base import Goal
from raymeta.tasks.episodes import Episode, Noise
from raymeta.tasks.inputs import only
from raymeta.tasks.navigation import moved, reward
from raymeta.trackers.scores import ScoreName
from raymeta.tree import Params, detach

LOG_STD = "policy/log_std"
"""Name of the learned log standard deviations of the policy [2]."""


class Trajectories(NamedTuple):
    """What a policy did: `states` and `actions` [n, H, 2], and the rewards [n, H] that came of it."""

    states: Tensor
    actions: Tensor
    rewards: Tensor


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MAMLRL(ScoredAlgorithm):
    """Finn, Abbeel, Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. ICML 2017, section 5.3.

    The policy is N(f_θ(s), diag exp(2 log σ)). Inner: K steps θ' = θ − α ∇L(τ, θ) with the policy-gradient loss
    L(τ, θ) = −mean Σ_t log π_θ(a_t | s_t) A_t on trajectories τ of θ. Outer: the same loss of θ' on trajectories of
    θ', differentiated through the inner steps. Advantages A are rewards to go, discounted, less their mean over
    trajectories at each moment, divided by their deviation. Trajectories are sampled from noise of the task's key and
    held constant, so the meta-gradient is that of the surrogate (a named pseudo-gradient: it lacks the derivative of
    the sampling of τ by θ, as the paper's code does).

    Differences from the paper: (1) the outer step is that of the outer optimiser in place of TRPO; (2) the baseline is
    the mean over trajectories in place of a linear one.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("regression",)
    uses_queries: ClassVar[bool] = False
    score: ClassVar[ScoreName | None] = "return"
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 3e-3}

    inner_lr: NonNegativeFloat = 0.01
    """inner learning rate α"""
    inner_steps: PositiveInt = 1
    """inner steps K"""
    trajectories: PositiveInt = 20
    """trajectories of each policy"""
    horizon: PositiveInt = 30
    """moments of a trajectory"""
    discount: float = Field(default=0.99, gt=0, le=1)
    """factor on the next moment's rewards"""
    init_std: float = Field(default=0.1, gt=0)
    """standard deviation of the policy at the start"""

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        value = next(iter(params.values()))
        log_std = torch.full((2,), self.init_std, dtype=value.dtype).log()
        return super().init(problem, params | {LOG_STD: log_std}, generator)

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        """Standard normal numbers [T, K + 1, trajectories, horizon, 2] of all policies of a task."""
        shape = steps_in(phase, self.inner_steps, None) + 1, self.trajectories, self.horizon, 2
        drawn = np.stack([key.generator("noise").standard_normal(shape) for key in keys])
        return {"actions": torch.from_numpy(drawn).to(only(episodes.support.x).dtype)}

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        policies, sampled = self._adapted(problem, learned, episode, noise, phase)
        returns = [one.rewards.sum(1).mean() for one in sampled]
        metrics = {"train/support_loss": -returns[0], "train/query_loss": -returns[-1]}
        return self._surrogate(problem, policies[-1], sampled[-1], phase), metrics

    def scores(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> dict[str, Tensor]:
        def one(episode: Episode, noise: Noise) -> dict[str, Tensor]:
            _, sampled = self._adapted(problem, learned, episode, noise, phase)
            return {"return": torch.stack([trajectories.rewards.sum(1).mean() for trajectories in sampled])}

        with torch.no_grad():
            result: dict[str, Tensor] = problem.map_over_tasks(one, episodes, noise)
        return result

    def _adapted(
        self, problem: Problem, learned: Learned, episode: Episode, noise: Noise, phase: Phase
    ) -> tuple[list[Params], list[Trajectories]]:
        """Policies before and after each inner step, and what each did."""
        goal, policies = only(episode.support.x)[0], [learned.params]
        sampled = [self._sampled(problem, learned.params, goal, noise["actions"][0], phase)]
        for k in range(1, len(noise["actions"])):
            last = sampled[-1]
            trajectory = descend(
                lambda theta, last=last: self._surrogate(problem, theta, last, phase),  # type: ignore[misc]
                policies[-1],
                lambda step: self.inner_lr,
                num_steps=1,
            )
            policies.append(trajectory.params[-1])
            sampled.append(self._sampled(problem, policies[-1], goal, noise["actions"][k], phase))
        return policies, sampled

    def _sampled(self, problem: Problem, theta: Params, goal: Tensor, normals: Tensor, phase: Phase) -> Trajectories:
        """What the policy θ does where its noise is `normals` [n, H, 2]; no derivative goes through it."""
        theta = detach(theta)
        position, std = torch.zeros_like(normals[:, 0]), theta[LOG_STD].exp()
        states, actions, rewards = [], [], []
        for draw in normals.unbind(1):
            action = problem.forward(Learned(theta, {}), position, phase) + std * draw
            states.append(position)
            actions.append(action)
            position = moved(position, action)
            rewards.append(reward(position, goal))
        return Trajectories(torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1))

    def _surrogate(self, problem: Problem, theta: Params, done: Trajectories, phase: Phase) -> Tensor:
        """−mean over trajectories of Σ_t log π_θ(a_t | s_t) A_t."""
        mean = problem.forward(Learned(theta, {}), done.states.flatten(0, 1), phase).view_as(done.actions)
        log_std = theta[LOG_STD]
        log_prob = (-0.5 * ((done.actions - mean) / log_std.exp()).square() - log_std).sum(-1)
        return -(log_prob * self._advantages(done.rewards)).sum(1).mean()

    def _advantages(self, rewards: Tensor) -> Tensor:
        """Rewards to go [n, H], centred at each moment and scaled over all."""
        to_go = [rewards[:, -1]]
        for now in reversed(rewards[:, :-1].unbind(1)):
            to_go.insert(0, now + self.discount * to_go[0])
        centred = torch.stack(to_go, 1)
        centred = centred - centred.mean(0)
        return centred / (centred.square().mean().sqrt() + 1e-8)
