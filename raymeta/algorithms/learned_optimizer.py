"""What all learned optimisers share: windows of an optimisee's steps, and three ways to a gradient of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.func import functional_call

from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.adaptation.unroll import THETA, Unroll, antithetic, perturbed, unroll
from raymeta.algorithms.base import Compute, Outer, ScoredAlgorithm
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.alone import Point
from raymeta.models.layers.beside import BODY, Beside
from raymeta.models.layers.optimizer_rules import OptimizerRule
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise, rows_of
from raymeta.trackers.axes import AxisName
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.trackers.scores import ScoreName
from raymeta.tree import Layout, Params

OPTIMIZER = "optimizer"
"""Name of the rule beside the optimisee."""
DRIFT = "drift"
"""Name of the row that holds the sums of all perturbations of an unroll so far [pairs, P]."""
_WINDOW = 1 << 40
"""How far apart the perturbations of two windows lie in the draws of a key."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LearnedOptimizer(ScoredAlgorithm):
    """Base of the methods that learn a rule θ_{t+1} = θ_t + g_t by what it makes of f(θ_t).

    f is the task's own where tasks are functions (`TaskSet.objective`). Everywhere else θ are the parameters of the
    configuration's model, and f_t is its loss on a batch of the support set that is drawn anew for each step, so f_t
    judges θ_t on another batch than the one that led there. The outer loss is Σ f_t(θ_t) over the steps of a window. θ
    and the rule's state are rows that the driver keeps from window to window; after `windows` of them new tasks begin.

    The gradient of a window is its derivative through the updates (`train: gradient`), or an estimate from antithetic
    perturbations of the rule, which are drawn anew for each window: `es` runs on without a perturbation after each
    window, `pes` carries both sides of every pair and the sums of their perturbations on.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification", "regression")
    uses_queries: ClassVar[bool] = False
    score: ClassVar[ScoreName | None] = "loss"
    axis: ClassVar[AxisName] = "unroll step"
    outer: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "lr": 1e-3}

    unroll: PositiveInt = 20
    """steps of the optimisee in a window"""
    windows: PositiveInt = 5
    """windows of a task"""
    batch_size: PositiveInt | None = None
    """examples in a batch of the optimisee, drawn anew for each of its steps; the whole support set unless given"""
    init_std: PositiveFloat = 0.01
    """standard deviation of the optimisee's first parameters around 0, or around 1 for gains of norms"""
    train: Literal["gradient", "es", "pes"] = "gradient"
    """how a window is differentiated: through its updates, or by (persistent) evolution strategies"""
    sigma: PositiveFloat = 0.01
    """standard deviation σ of the perturbations of `es` and `pes`"""
    pairs: PositiveInt = 1
    """antithetic pairs of perturbations for each task"""

    @abstractmethod
    def rule(self) -> OptimizerRule:
        """The network that is learned."""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        objective = tasks.objective()
        optimisee = super().network(spec, tasks) if objective is None else Point(objective)
        return Beside(optimisee.requires_grad_(False), **{OPTIMIZER: self.rule()})

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        if problem.running_statistics():
            raise ConfigError("a learned optimiser trains new networks, which have no running statistics yet: leave "
                              "batch_norm out, which is transductive then")  # fmt: skip
        return super().init(problem, params, generator)

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        """θ_0 [T, n], the examples of each step's batch [T, K + 1, batch_size], perturbations [T, pairs, P]."""
        first = phase.step % self.windows * self.unroll if phase.training else 0
        num_steps = self.unroll if phase.training else self._num_steps(phase)
        center = _center(problem)
        draws = [self._drawn(key, len(center), len(episodes.support.y[0]), first + num_steps + 1) for key in keys]
        noise = {THETA: center + self.init_std * torch.from_numpy(np.stack([theta for theta, _ in draws]))}
        noise[THETA] = noise[THETA].to(center.dtype)
        if self.batch_size is not None:
            noise["batch"] = torch.from_numpy(np.stack([batches[first:] for _, batches in draws]))
        if phase.training and self.train != "gradient":
            shape = self.pairs, sum(problem.model.get_parameter(name).numel() for name in problem.param_names)
            drawn = np.stack([_after(key, phase.step % self.windows).standard_normal(shape) for key in keys])
            noise["perturbation"] = torch.from_numpy(drawn).to(center.dtype)
        return noise

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        episode, window = divmod(phase.step, self.windows)
        total = compute("window", rows=outer.memory, of=episode) if window else compute("first_window", of=episode)
        outer.memory = total.tasks()
        return {OUTER_GRAD_NORM: outer.update(total.means())}

    def first_window(self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase) -> Part:
        """The first window of a task, from where its noise says."""
        rows = self.start(problem, noise)
        if self.train == "pes":
            rows = {name: value.expand(2 * self.pairs, *value.shape) for name, value in rows.items()}
            rows[DRIFT] = torch.zeros_like(noise["perturbation"])
        return self.window(problem, learned, episode, noise=noise, rows=rows, phase=phase)

    def window(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, rows: Params, phase: Phase
    ) -> Part:
        """The gradient of Σ f_t(θ_t) over the steps after `rows`, and the rows after them."""

        def unrolled(params: Params, rows: Params) -> Unroll:
            now = learned._replace(params=params)
            return self.unrolled(problem, now, episode.support, rows, self.unroll, noise=noise, phase=phase)

        if self.train == "gradient":
            return _differentiated(unrolled, learned.params, rows)
        draws = noise["perturbation"]
        if self.train == "pes":
            return self._persistent(unrolled, learned.params, rows, draws)
        sides = perturbed(unrolled, learned.params, draws, self.sigma, rows, own=False)
        gradient = antithetic(Layout.of(learned.params), sides.losses[:, 1:].sum(1), draws, self.sigma)
        return Part(gradient, *_carried(unrolled(learned.params, rows)))

    def _persistent(self, unrolled: Unrolled, params: Params, rows: Params, draws: Tensor) -> Part:
        drift = rows[DRIFT] + draws
        own = {name: value for name, value in rows.items() if name != DRIFT}
        sides = perturbed(unrolled, params, draws, self.sigma, own, own=True)
        gradient = antithetic(Layout.of(params), sides.losses[:, 1:].sum(1), drift, self.sigma)
        metrics, after = _carried(Unroll(sides.losses.mean(0), sides.rows))
        return Part(gradient, metrics, after | {DRIFT: drift})

    def scores(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> dict[str, Tensor]:
        """f_t(θ_t) before and after each step [T, K + 1], K = unroll · windows unless the phase says otherwise."""
        phase = phase._replace(way=phase.way or problem.way_of(episodes))

        def one(episode: Episode, noise: Noise) -> dict[str, Tensor]:
            rows, num_steps = self.start(problem, noise), self._num_steps(phase)
            found = self.unrolled(problem, learned, episode.support, rows, num_steps, noise=noise, phase=phase)
            return {"loss": found.losses}

        with torch.no_grad():
            result: dict[str, Tensor] = problem.map_over_tasks(one, episodes, noise)
        return result

    def unrolled(
        self,
        problem: Problem,
        learned: Learned,
        support: Examples,
        rows: Params,
        num_steps: int,
        *,
        noise: Noise,
        phase: Phase,
    ) -> Unroll:
        """`num_steps` of the optimisee from `rows` on."""
        body = problem.model.get_submodule(BODY.rstrip("."))
        layout = Layout.of(dict(body.named_parameters()))

        def objective(theta: Tensor, t: int) -> Tensor:
            batch = rows_of(support, noise["batch"][t]) if "batch" in noise else support
            if isinstance(body, Point):
                value: Tensor = functional_call(body, layout.unflatten(theta), (batch.x, batch.y))
                return value
            named = {BODY + name: value for name, value in layout.unflatten(theta).items()}
            return problem.loss(problem.predict(Learned(named, {}), batch.x, phase), batch.y)

        def rule(slope: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Params]:
            update, after = problem.beside(OPTIMIZER, learned, slope, state)
            return update, after

        return unroll(objective, rule, rows, num_steps)

    def start(self, problem: Problem, noise: Noise) -> Params:
        """θ_0 and the rule's state before the first step."""
        rule = problem.model.get_submodule(OPTIMIZER)
        assert isinstance(rule, OptimizerRule)
        return rule.start(noise[THETA]) | {THETA: noise[THETA]}

    def _num_steps(self, phase: Phase) -> int:
        return self.unroll * self.windows if phase.inner_steps is None else phase.inner_steps

    def _drawn(self, key: TaskKey, size: int, num_examples: int, num_steps: int) -> tuple[Any, Any]:
        """Standard normal numbers [n], and the batch of every step since the first [num_steps, batch_size]."""
        generator = key.generator("noise")
        theta = generator.standard_normal(size)
        return theta, generator.integers(0, num_examples, (num_steps, self.batch_size or 0))


Unrolled = Callable[[Params, Params], Unroll]


def _differentiated(unrolled: Unrolled, params: Params, rows: Params) -> Part:
    def loss_of(params: Params) -> tuple[Tensor, Unroll]:
        found = unrolled(params, rows)
        return found.losses[1:].sum(), found

    gradient, (_, found) = gradient_and_value(loss_of, params, has_aux=True)
    return Part(gradient, *_carried(found))


def _carried(found: Unroll) -> tuple[dict[str, Tensor], Params]:
    """Metrics and rows, without what they were computed from."""
    ends = {"train/support_loss": found.losses[0].detach(), "train/query_loss": found.losses[-1].detach()}
    return ends, {name: value.detach() for name, value in found.rows.items()}


def _center(problem: Problem) -> Tensor:
    """Around what the optimisee's first parameters lie [n]: 1 for gains, which a network starts at 1, and 0."""
    body = problem.model.get_submodule(BODY.rstrip("."))
    return torch.cat([(p.detach() == 1).all().to(p.dtype).expand(p.numel()).cpu() for p in body.parameters()])


def _after(key: TaskKey, window: int) -> np.random.Generator:
    """The generator of a window's perturbations: that of the key's noise, far behind its other draws."""
    generator = key.generator("noise")
    bits: Any = generator.bit_generator
    bits.advance((window + 1) * _WINDOW)
    return generator
