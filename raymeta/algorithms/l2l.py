"""Learning to learn by gradient descent by gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import Compute, Outer, ScoredAlgorithm
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.coordinate_lstm import CoordinateLSTM, preprocess
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import only
from raymeta.trackers.axes import AxisName
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.trackers.scores import ScoreName
from raymeta.tree import Params

START = 0.01
"""Standard deviation of the optimisee's first parameters."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class L2L(ScoredAlgorithm):
    """Andrychowicz et al. Learning to learn by gradient descent by gradient descent. NIPS 2016, arXiv:1606.04474.

    θ_{t+1} = θ_t + g_t with (g_t, h_{t+1}) = m(∇f(θ_t), h_t), one small LSTM m for every coordinate of θ. The outer
    loss is Σ f(θ_t) over a window of `unroll` steps, differentiated through the updates; ∇f is an input, so its own
    derivative is dropped, and windows do not differentiate through one another. θ and h of every task are rows that
    the driver keeps from window to window; after `windows` of them new tasks begin.

    Differences from the paper: (1) outer steps are counted in windows, so `steps` is `windows` times the number of
    tasks met; (2) the network of the configuration is not used, as the optimiser is the model.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("regression",)
    uses_queries: ClassVar[bool] = False
    score: ClassVar[ScoreName | None] = "loss"
    axis: ClassVar[AxisName] = "unroll step"
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3}

    unroll: PositiveInt = 20
    """steps of the optimisee in a window"""
    windows: PositiveInt = 5
    """windows of a task"""
    hidden: PositiveInt = 20
    """units of each LSTM layer"""
    layers: PositiveInt = 2
    """LSTM layers"""
    output_scale: PositiveFloat = 0.01
    """factor on the LSTM's output"""
    log_range: PositiveFloat = 10.0
    """p: gradients of magnitude from e^−p are given to the LSTM as (log|g| / p, sign g), smaller ones as (−1, e^p g)"""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        return CoordinateLSTM(2, self.hidden, self.layers)

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        x = only(episodes.support.x)
        theta = np.stack([START * key.generator("noise").standard_normal(x.shape[-1]) for key in keys])
        return {"theta": torch.from_numpy(theta).to(x.dtype)}

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        episode, window = divmod(phase.step, self.windows)
        total = compute("window", rows=outer.memory, of=episode) if window else compute("first_window", of=episode)
        outer.memory = total.tasks()
        return {OUTER_GRAD_NORM: outer.update(total.means())}

    def first_window(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """The first window of a task, from where its noise says."""
        return self.window(problem, learned, episode, noise=noise, rows=self._start(noise), phase=phase)

    def window(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, rows: Params, phase: Phase
    ) -> Part:
        """The gradient of Σ f(θ_t) over the steps after `rows`, and the rows after them."""

        def loss_of(params: Params) -> tuple[Tensor, Params]:
            losses, after = self._unrolled(problem, learned._replace(params=params), episode.support, rows, self.unroll)
            return losses[1:].sum(), after | {"losses": losses}

        gradient, (_, after) = gradient_and_value(loss_of, learned.params, has_aux=True)
        losses = after.pop("losses")
        metrics = {"train/support_loss": losses[0].detach(), "train/query_loss": losses[-1].detach()}
        return Part(gradient, metrics, {name: value.detach() for name, value in after.items()})

    def scores(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> dict[str, Tensor]:
        num_steps = self.unroll * self.windows if phase.inner_steps is None else phase.inner_steps

        def one(episode: Episode, noise: Noise) -> dict[str, Tensor]:
            losses, _ = self._unrolled(problem, learned, episode.support, self._start(noise), num_steps)
            return {"loss": losses}

        with torch.no_grad():
            result: dict[str, Tensor] = problem.map_over_tasks(one, episodes, noise)
        return result

    def _start(self, noise: Noise) -> Params:
        theta = noise["theta"]
        return {"theta": theta, "hidden": theta.new_zeros(theta.shape[-1], self.layers, 2, self.hidden)}

    def _unrolled(
        self, problem: Problem, learned: Learned, task: Examples, rows: Params, num_steps: int
    ) -> tuple[Tensor, Params]:
        """f before and after each step [K + 1], and the rows after the last."""
        theta, hidden, losses = rows["theta"], rows["hidden"], []
        for _ in range(num_steps):
            slope, _ = gradient_and_value(lambda at: quadratic(task, at["theta"]), {"theta": theta.detach()})
            losses.append(quadratic(task, theta))
            update, hidden = problem.beside("", learned, preprocess(slope["theta"].detach(), self.log_range), hidden)
            theta = theta + self.output_scale * update
        losses.append(quadratic(task, theta))
        return torch.stack(losses), {"theta": theta, "hidden": hidden}


def quadratic(task: Examples, theta: Tensor) -> Tensor:
    """‖Wθ − y‖² of `Quadratics`."""
    return (only(task.x) @ theta - task.y[:, 0]).square().sum()
