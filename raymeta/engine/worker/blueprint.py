"""What a worker is made of: small enough to send, and the same for every worker."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import nn

from raymeta.adaptation.losses import Loss
from raymeta.adaptation.problem import BatchNormPolicy, Learned, Problem, Vectorize
from raymeta.algorithms.base import Algorithm
from raymeta.engine.job import Payload
from raymeta.engine.worker.numerics import Numerics
from raymeta.errors import EnvironmentProblem
from raymeta.models.habits import ONLY_COMPUTES, Habits
from raymeta.tasks.base import TaskSet
from raymeta.tasks.mixing import Mixing
from raymeta.tree import Layout


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Everything a worker is made of; a few kilobytes to pickle besides the model."""

    tasks: TaskSet
    algorithm: Algorithm
    model: nn.Module
    layout: Layout
    state_layout: Layout
    momenta: Mapping[str, float | None] = field(default_factory=dict)
    """of running statistics, by name; None for a mean over all steps"""
    habits: Habits = ONLY_COMPUTES
    loss: Loss | None = None
    metrics: Mapping[str, Loss] = field(default_factory=dict)
    wide_head: bool = False
    batch_norm: BatchNormPolicy = "transductive"
    vectorize: Vectorize = "vmap"
    checkpoint_inner_steps: bool = False
    compiled: bool = False
    mixing: Mixing | None = None
    """how training tasks are made of others"""
    numerics: Numerics = field(default_factory=Numerics)
    device: Literal["auto", "cpu", "cuda"] = "cpu"

    def payload(self, learned: Learned) -> Payload:
        """Everything learned as one flat vector [P + S] in the layouts' order (a file's order may be another)."""
        parts = [self.layout.flatten(learned.params), self.state_layout.flatten(learned.state)]
        return Payload(torch.cat([part.to(parts[0].dtype) for part in parts]).numpy())

    def on_cpu(self) -> Blueprint:
        """With a copy of the model there: an executor in this process may have moved the model to its device."""
        return replace(self, model=copy.deepcopy(self.model).cpu())

    def problem(self) -> Problem:
        return Problem(
            self.model,
            goal=self.tasks.goal,
            batch_norm=self.batch_norm,
            vectorize=self.vectorize,
            habits=self.habits,
            loss=self.loss,
            judged=True,
            metrics=self.metrics,
            checkpoint_inner_steps=self.checkpoint_inner_steps,
            wide_head=self.wide_head,
            two_labels=self.mixing is not None and self.mixing.gives_two_labels,
        )


def choose_device(wanted: str) -> torch.device:
    """The device torch sees: a GPU where there is one and it was not declined."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise EnvironmentProblem("device cuda was asked, but torch sees no GPU here: use --device cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")
