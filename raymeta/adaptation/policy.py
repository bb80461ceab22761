"""REINFORCE with a moving baseline, for a network that makes one choice after another."""

from __future__ import annotations

from torch import Tensor

from raymeta.adaptation.problem import Learned, Problem
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.tree import Params

BASELINE = "baseline"
"""Name in memory, and of what is given, of the moving mean of rewards [1]."""


def log_prob(logits: Tensor, choices: Tensor) -> Tensor:
    """Of choices [n] under logits [n, possibilities]."""
    return logits.log_softmax(1).gather(1, choices.long()[:, None]).sum()


def score_function(
    problem: Problem,
    controller: str,
    learned: Learned,
    own: Params,
    choices: Tensor,
    reward: Tensor,
    *,
    entropy_weight: float,
) -> Params:
    """−(R − b) ∇ log π(a) in the parameters `own` of the network `controller`, for the baseline b that is given.

    An entropy bonus −log π(a) is part of R.
    """

    def log_prob_of(params: Params) -> Tensor:
        there = learned._replace(params=learned.params | params)
        return log_prob(problem.beside(controller, there, choices), choices)

    slope, value = gradient_and_value(log_prob_of, own)
    advantage = reward - entropy_weight * value.detach() - learned.given[BASELINE][0]
    return {name: -advantage * part for name, part in slope.items()}


def moved(baseline: Tensor | None, rewards: Tensor, decay: float) -> Tensor:
    """The next baseline [1] after rewards [T], of which `decay` stays; their mean where there was none."""
    mean = rewards.mean()[None]
    return mean if baseline is None else decay * baseline + (1 - decay) * mean
