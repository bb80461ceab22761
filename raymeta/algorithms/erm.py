"""Empirical risk minimisation over domains, the reference that generalisation to others must beat."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.outcome import training_metrics
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import TrainedModel
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Noise
from raymeta.tasks.inputs import joined


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ERM(TrainedModel):
    """Minimise the mean loss over all domains at once, which is Gulrajani and Lopez-Paz's strong baseline (In Search of
    Lost Domain Generalization, ICLR 2021).

    A task's loss is the mean over its support and query, so it sees the images that `mldg` sees of the same keys.
    """

    passes_once: ClassVar[bool] = True
    at_once: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3}

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        support, query = episode
        y = torch.cat([support.y, query.y])
        outputs = problem.predict(learned, joined(support.x, query.x), phase)
        loss = problem.loss(outputs, y)
        return loss, training_metrics(problem, loss, outputs, y, None)
