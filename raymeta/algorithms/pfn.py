"""PFN: a transformer that was trained on tasks of a prior answers as the prior's posterior would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, cast

import torch
from pydantic import Field, PositiveInt, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.embedding import embed, one_hot
from raymeta.adaptation.likelihoods import Bars, bars_of
from raymeta.adaptation.outcome import Adaptation
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.layers.in_context import InContext
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Examples, Noise
from raymeta.tasks.inputs import Inputs
from raymeta.trackers.scores import ScoreName
from raymeta.tree import Params

READER = "reader"
"""Name of the transformer beside the model."""
PRIOR_TASKS = 1000
"""Training tasks whose targets the borders of the bars are quantiles of."""
SMALL = 1e-6
"""Added to variances of features, so that those that do not vary become 0."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PFN(Algorithm):
    """Müller, Hollmann, Pineda Arango, Grabocka, Hutter. Transformers Can Do Bayesian Inference. ICLR 2022.

    One transformer reads the support set and the queries: the token of a support example is e(f(x)) + e(y), that of a
    query e(f(x)), without places. Support attends to support, and a query attends to the support and to nothing else.
    Classes are told by their logits. A target y is told by a bar distribution: logits of bars between fixed borders,
    which are quantiles of the targets of training tasks, with half-normal tails; its score is the negative
    log-likelihood. The outer loop learns f, the model, and the transformer by the mean −log p(y | x, support) of the
    queries, which is least for the posterior predictive distribution of the prior that tasks are drawn from. There is
    no inner loop: adapting is one pass.

    Differences from the paper:
    1. Layer norm comes before attention and before the layers of each token, so no warm-up is needed.
    2. A query does not attend to itself; it reaches itself through the sum alone.
    3. Labels are embedded without bias and classes as one-hot vectors, and no class has a greater number than another.
    4. The default size is 128 wide and 4 deep, for processors; the paper's is 512 wide and 6 deep.
    """

    at_once: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 3e-4, "schedule": "cosine", "clip_norm": 1.0}

    width: PositiveInt = 128
    """size of a token, a multiple of `heads`"""
    depth: PositiveInt = 4
    """blocks of attention"""
    heads: PositiveInt = 4
    """heads of each attention"""
    bars: int = Field(default=100, ge=3)
    """bars of the distribution of a target"""
    standardize: bool = False
    """shift and scale each feature by mean and deviation of the support, as tables need it"""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> PFN:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self

    def score_of(self, goal: Goal) -> ScoreName:
        return "nll" if goal == "regression" else super().score_of(goal)

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = spec.build(tasks.input_shape, None)
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        labels = self.num_outputs(tasks) or 0
        if tasks.goal == "classification":
            return Beside(body, **{READER: self.reader(features, labels)})
        if labels != 1:
            raise ConfigError(f"pfn tells one target by bars, and these tasks have {labels}: use --algorithm cnp")
        return Beside(body, **{READER: self.reader(features, 1, bars_of(torch.cat(list(_targets(tasks))), self.bars))})

    def reader(self, features: int, labels: int, bars: Bars | None = None) -> InContext:
        """The transformer for so many features and classes, or for the `bars` of one target."""
        outputs = labels if bars is None else len(bars.borders) - 1
        reader = InContext(features, labels, outputs, width=self.width, depth=self.depth, heads=self.heads)
        if bars is not None:
            reader.register_buffer("borders", bars.borders)
        return reader

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        if problem.goal == "regression" and problem.own_loss is not None:
            raise ConfigError("pfn learns the likelihood of its bars: leave loss out")
        return super().init(problem, params, generator)

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        reader = cast(InContext, problem.model.get_submodule(READER))
        bars = Bars(reader.borders) if problem.goal == "regression" else None

        def predict(x: Inputs) -> Tensor:
            z_SF, z_QF = (z.flatten(1) for z in embed(problem, learned, support.x, x, phase))
            if self.standardize:
                z_SF, z_QF = standardized(z_SF, z_QF)
            y_SY = support.y if bars else one_hot(support.y, reader.labels, z_SF.dtype)
            return problem.of_way(problem.beside(READER, learned, z_SF, y_SY, z_QF), phase)

        if bars is None:
            return Adaptation([predict])
        return Adaptation([predict], loss=bars.nll, point=bars.point, deviation=bars.deviation)


def _targets(tasks: TaskSet) -> Iterator[Tensor]:
    """Targets [n] of training tasks, the same in any process."""
    for step in range(PRIOR_TASKS):
        support, query = tasks.episode(TaskKey(0, "train", step, 0))
        yield torch.cat([support.y, query.y]).flatten()


def standardized(z_SF: Tensor, z_QF: Tensor) -> tuple[Tensor, Tensor]:
    """Features of which those of the support have mean 0 and deviation 1."""
    mean_F, scale_F = z_SF.mean(0), (z_SF.var(0, correction=0) + SMALL).sqrt()
    return (z_SF - mean_F) / scale_F, (z_QF - mean_F) / scale_F
