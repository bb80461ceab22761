"""Plain training of one model, the reference of methods that treat examples or domains unlike."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.outcome import training_metrics
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import TrainedModel
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Noise


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Plain(TrainedModel):
    """Stochastic gradient descent on the mean loss of the training batches, wrong labels and all: w ← w − η ∇L(w).

    With `part: clean` it learns from the clean batches alone, the other reference: what do so few right labels give?
    Metrics of training are those of the batches that it learns from.
    """

    uses_queries: ClassVar[bool] = False
    passes_once: ClassVar[bool] = True
    at_once: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}

    part: Literal["train", "clean"] = "train"
    """what it learns from: the training part (support sets), or the clean one (query sets)"""

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        examples = episode.support if self.part == "train" else episode.query
        outputs = problem.predict(learned, examples.x, phase)
        loss = problem.loss(outputs, examples.y)
        return loss, training_metrics(problem, loss, outputs, examples.y, None)
