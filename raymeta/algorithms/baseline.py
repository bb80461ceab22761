"""Baseline and Baseline++: pre-train a classifier on all training classes, then fit a new head to each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from raymeta.adaptation.descent import steps_in
from raymeta.adaptation.outcome import Adaptation, Predictor, once, training_metrics
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.keys import TaskKey
from raymeta.models.shapes import type_of
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import joined
from raymeta.tree import Params, tree_map


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Baseline(Algorithm):
    """Chen, Liu, Kira, Wang, Huang. A Closer Look at Few-shot Classification. ICLR 2019.

    Training: cross-entropy over all training classes on the episodes' images. Test: the body is frozen, and a new
    head is fitted to the support with SGD (momentum, dampening, weight decay) in mini-batches. `head: linear` is
    Baseline; `head: cosine` is Baseline++, logits scale · cos(z, w_n). One inner step is one pass over the support.

    Differences from the paper's code: (1) a training batch is the images of an episode, so it holds `way` classes
    at a time, averaged over the meta-batch; (2) the new linear head starts at zero, so that predictions before
    adaptation are uniform; the cosine head starts at random directions drawn from the task's key.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    uses_queries: ClassVar[bool] = False
    splits_model: ClassVar[bool] = True
    uses_class_ids: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3}

    head: Literal["linear", "cosine"] = "linear"
    """`linear` (Baseline) or `cosine` (Baseline++)"""
    scale: PositiveFloat = 2.0
    """factor on the cosines (the paper: 2, or 10 with more than 200 classes)"""
    test_inner_steps: NonNegativeInt = 100
    """passes over the support set when a new head is fitted"""
    head_lr: NonNegativeFloat = 0.01
    """learning rate of the new head"""
    head_batch_size: PositiveInt = 4
    """support examples in a mini-batch of the head's fit"""
    head_momentum: float = 0.9
    """momentum of the head's SGD"""
    head_dampening: float = 0.9
    """dampening of the head's SGD"""
    head_weight_decay: NonNegativeFloat = 1e-3
    """weight decay of the new head"""

    def num_outputs(self, tasks: TaskSet) -> int | None:
        return tasks.num_classes("train")

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        support = episodes.support
        if phase.training:
            return {}
        num_support, passes = support.y.shape[1], steps_in(phase, 0, self.test_inner_steps)
        generators = [key.generator("noise") for key in keys]
        orders = [np.argsort(rng.random((passes, num_support)), axis=1, kind="stable") for rng in generators]
        noise = {"order": torch.from_numpy(np.stack(orders))}
        if self.head == "cosine":
            width = problem.model.get_submodule(problem.head_name).in_features
            way = int(support.y.max()) + 1
            directions = np.stack([rng.standard_normal((way, int(width))) for rng in generators])  # type: ignore[arg-type]
            noise["directions"] = torch.from_numpy(directions).to(type_of(problem.model))
        return noise

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x = joined(episode.support.x, episode.query.x)
        sides = (episode.support.class_id, episode.query.class_id)
        class_id = torch.cat([ids for ids in sides if ids is not None])
        if self.head == "linear":
            logits = problem.forward(learned, x, phase)
        else:
            weight = learned.params[f"{problem.head_prefix}weight"]
            logits = self._logits({"weight": weight}, problem.features(learned, x, phase))
        loss = problem.loss(logits, class_id)
        return loss, training_metrics(problem, loss, logits, class_id, None)

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        z_SD = problem.features(learned, support.x, phase)
        head = self._new_head(z_SD, phase.way, noise)
        velocity: Params | None = None
        heads, first_loss = [head], None
        for order in noise["order"]:
            for batch in order.split(self.head_batch_size):
                z, y = z_SD[batch], support.y[batch]

                def head_loss(head: Params, z: Tensor = z, y: Tensor = y) -> Tensor:
                    return problem.loss(self._logits(head, z), y)

                gradient, loss = gradient_and_value(head_loss, head)
                first_loss = loss if first_loss is None else first_loss
                gradient = tree_map(lambda g, w: g + self.head_weight_decay * w, gradient, head)
                velocity = gradient if velocity is None else self._momentum(velocity, gradient)
                head = tree_map(lambda w, v: w - self.head_lr * v, head, velocity)
            heads.append(head)
        embed = once(lambda x: problem.features(learned, x, phase, support_x=support.x))

        def predictor(head: Params) -> Predictor:
            return lambda x: self._logits(head, embed(x))

        return Adaptation([predictor(head) for head in heads], first_loss)

    def _new_head(self, z_SD: Tensor, way: int, noise: Noise) -> Params:
        if self.head == "cosine":
            return {"weight": noise["directions"]}
        return {"weight": z_SD.new_zeros(way, z_SD.shape[1]), "bias": z_SD.new_zeros(way)}

    def _logits(self, head: Params, z: Tensor) -> Tensor:
        if self.head == "cosine":
            return self.scale * F.normalize(z, dim=-1) @ F.normalize(head["weight"], dim=-1).T
        return F.linear(z, head["weight"], head["bias"])

    def _momentum(self, velocity: Params, gradient: Params) -> Params:
        keep, add = self.head_momentum, 1 - self.head_dampening
        return tree_map(lambda v, g: keep * v + add * g, velocity, gradient)
