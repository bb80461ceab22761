"""Reptile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.descent import steps_in
from raymeta.adaptation.outcome import Adaptation, Predictor, training_metrics
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Examples, Noise, rows_of
from raymeta.tasks.inputs import Inputs
from raymeta.tree import Params, detach, tree_map

BETA2, EPS = 0.999, 1e-8
MOMENTS = "inner_second_moment/"
COUNT = "inner_count"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reptile(Algorithm):
    """Nichol, Achiam, Schulman. On First-Order Meta-Learning Algorithms. arXiv:1803.02999.

    Inner: K mini-batch steps of Adam with β1 = 0 (or SGD) on the task's support set, cycling through it in a new
    random order each pass. Outer: φ ← φ + ε · mean(θ_K − φ). A worker returns φ − θ_K, so that the outer step is SGD
    with rate ε (here 1, annealed linearly to 0, as in the paper) and any other outer optimiser may be tried.

    `inner_state` says what becomes of Adam's second moments:
    - `fresh`: zero for every task.
    - `driver`: the driver owns them, broadcasts them, and replaces them by the mean over tasks of their final values.
      The paper's code keeps them from task to task in one process; this is its deterministic counterpart.
    - `actor`: kept by each worker from task to task. Refused here, because the result would then depend on the number
      of workers and could not be resumed.

    The query set is not used in training; give `tasks.train_shot` the paper's training shots.
    """

    uses_queries: ClassVar[bool] = False
    outer: ClassVar[dict[str, Any]] = {"optimizer": "sgd", "lr": 1.0, "schedule": "linear", "final_lr": 0.0}

    inner_lr: NonNegativeFloat = 1e-3
    """inner learning rate"""
    inner_steps: NonNegativeInt = 5
    """inner steps K in training"""
    test_inner_steps: NonNegativeInt = 50
    """inner steps at validation and test; fewer lose several points"""
    inner_batch_size: PositiveInt = 10
    """support examples in an inner step in training, at most the whole support set"""
    test_inner_batch_size: PositiveInt = 5
    """support examples in an inner step at validation and test, at most the whole support set"""
    inner_optimizer: Literal["adam", "sgd"] = "adam"
    """`adam` with β1 = 0, or plain `sgd`"""
    inner_state: Literal["fresh", "driver", "actor"] = "fresh"
    """Adam's second moments: `fresh` per task, or folded by the `driver`"""

    @field_validator("inner_state")
    @classmethod
    def _no_state_on_actors(cls, value: str) -> str:
        if value == "actor":
            raise ValueError(
                "`actor` would keep moments in each worker, so the result would depend on the number of workers: "
                "use `driver` (folded over tasks each step) or `fresh`"
            )
        return value

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        if problem.batch_norm == "running":
            raise ConfigError(
                "batch_norm running needs a query pass in training, which reptile has not: "
                "use --batch_norm transductive or support"
            )
        if self.inner_state == "fresh":
            return Learned(params, {})
        moments = {MOMENTS + name: torch.zeros_like(p) for name, p in params.items()}
        return Learned(params, moments | {COUNT: torch.zeros(())})

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        support = episodes.support
        num_support = support.y.shape[1]
        size = min(self.inner_batch_size if phase.training else self.test_inner_batch_size, num_support)
        num_steps = steps_in(phase, self.inner_steps, self.test_inner_steps)
        orders = [_cycle(key.generator("noise"), num_support, num_steps, size) for key in keys]
        return {"order": torch.from_numpy(np.stack(orders))}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        trajectory, _, support_loss = self._descend(problem, learned, support, noise, phase)

        def predictor(theta: Params) -> Predictor:
            return lambda x: problem.predict(Learned(theta, {}), x, phase, support_x=support.x)

        return Adaptation([predictor(theta) for theta in trajectory], support_loss)

    def task_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        trajectory, state, support_loss = self._descend(problem, learned, episode.support, noise, phase)
        theta, query = trajectory[-1], episode.query
        metrics = {} if support_loss is None else {"train/support_loss": support_loss.detach()}
        if len(query.y):
            outputs = problem.predict(Learned(theta, {}), query.x, phase, support_x=episode.support.x)
            metrics = training_metrics(problem, problem.loss(outputs, query.y), outputs, query.y, support_loss)
        return Part(tree_map(torch.sub, learned.params, theta) | state, metrics)

    def fold_state(self, state: Params, mean: Params, momenta: Mapping[str, float]) -> Params:
        return {name: mean[name].to(value.dtype) for name, value in state.items()}

    def _descend(
        self, problem: Problem, learned: Learned, support: Examples, noise: Noise, phase: Phase
    ) -> tuple[list[Params], Params, Tensor | None]:
        """Parameters before and after each inner step, the final inner state, and the first mini-batch's loss."""
        theta = detach(learned.params)
        moments = {n.removeprefix(MOMENTS): v for n, v in learned.state.items() if n != COUNT}
        moments = moments or tree_map(torch.zeros_like, theta)
        count = learned.state.get(COUNT, torch.zeros(()))
        trajectory, first_loss = [theta], None
        for order in noise["order"]:
            x, y, _ = rows_of(support, order)

            def batch_loss(theta: Params, x: Inputs = x, y: Tensor = y) -> Tensor:
                return problem.loss(problem.predict(Learned(theta, {}), x, phase), y)

            gradient, loss = gradient_and_value(batch_loss, theta)
            first_loss = loss if first_loss is None else first_loss
            if self.inner_optimizer == "adam":
                count = count + 1
                moments = tree_map(lambda v, g: BETA2 * v + (1 - BETA2) * g.square(), moments, gradient)
                bias = 1 - BETA2**count
                gradient = tree_map(lambda g, v, bias=bias: g / ((v / bias).sqrt() + EPS), gradient, moments)
            theta = tree_map(lambda t, g: t - self.inner_lr * g, theta, gradient)
            trajectory.append(theta)
        state = {} if not learned.state else {MOMENTS + n: v for n, v in moments.items()} | {COUNT: count}
        return trajectory, state, first_loss


def _cycle(rng: np.random.Generator, num_examples: int, num_steps: int, size: int) -> np.ndarray:
    """Indices [K, size] of mini-batches that run through shuffled examples, shuffled anew each pass."""
    passes = -(-num_steps * size // num_examples)
    if passes == 0:
        return np.zeros((0, size), dtype=np.int64)
    sequence = np.concatenate([rng.permutation(num_examples) for _ in range(passes)])
    return sequence[: num_steps * size].reshape(num_steps, size)
