"""What methods with a teacher share: a teacher beside the student, its own training, and the student's loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.distillation import Temperatures, soft_loss
from raymeta.adaptation.outcome import training_metrics
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import Compute, Outer
from raymeta.algorithms.look_ahead import LookAhead
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.tasks.inputs import Inputs, only
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.tree import Params

TEACHER = "teacher"
"""Name of the network beside the model, which is the student."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Distillation(LookAhead):
    """Base of the methods in which a student S, the run's model, learns from labels and from a teacher T beside it.

    The support sets of a step are its training batch, on which the student's loss is ℓ(S, T) = α KD(S, T) + (1 − α) CE;
    the query sets are the quiz. The first `teacher_steps` steps train the teacher alone, on labels; then the student
    learns, and before each of its steps what teaches it, h, as `LookAhead` says.
    """

    outer: ClassVar[Mapping[str, Any]] = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """share α of the teacher's word in the student's loss; labels have the rest"""
    temperature: PositiveFloat = 4.0
    """what logits of teacher and student are divided by before the softmax"""
    teacher_width: PositiveInt | None = None
    """channels of each block (conv4) or units of each hidden layer (mlp) of the teacher; the model's unless given"""
    teacher_depth: PositiveInt | None = None
    """blocks or hidden layers of the teacher; as many as the model has unless given"""
    teacher: str | None = None
    """trained teacher: a run (folder, id, `latest`: its best checkpoint), an exported model, or a file of tensors; of a
    run with a teacher that one, else its model"""
    teacher_steps: NonNegativeInt = 0
    """first steps of the run, which train the teacher alone; 0 where `teacher` or --start brings one that is trained"""
    teacher_lr: PositiveFloat = 0.05
    """learning rate of the teacher"""

    def doubts(self, steps: int, *, started: bool = False) -> Sequence[str]:
        if not self.teacher_steps and not started and self.teacher is None:
            return ["the teacher is as it was initialised: raise algorithm.teacher_steps, or name a taught one with "
                    "--algorithm.teacher"]  # fmt: skip
        if steps > self.teacher_steps:
            return ()
        return [
            f"all {steps} steps train the teacher (algorithm.teacher_steps {self.teacher_steps}), and the student, "
            "which is scored, stays as it was initialised: raise steps, or lower teacher_steps"
        ]

    def starts(self) -> Mapping[str, str]:
        return {} if self.teacher is None else {TEACHER: self.teacher}

    def temperatures(self, params: Params) -> Temperatures:
        return Temperatures(self.temperature, self.temperature)

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = super().network(spec, tasks)
        teacher = super().network(spec.resized(self.teacher_width, self.teacher_depth), tasks)
        return Beside(body, **{TEACHER: teacher})

    def outer_of(self, name: str) -> Mapping[str, Any]:
        return {"lr": self.teacher_lr} if is_teacher(name) else {}

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        learned = super().init(problem, params, generator)
        needs_teacher = self.teacher_steps > 0 or (self.looks_ahead and self.is_meta(f"{TEACHER}."))
        if needs_teacher and not any(map(is_teacher, params)):
            raise ConfigError(
                f"freeze leaves no parameter of the teacher to be learned, and {type(self).__name__} steps them: "
                "freeze less. A teacher is left as it is by mkd, or with teach false, where teacher_steps is 0"
            )
        return learned

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        if phase.step < self.teacher_steps:
            return {OUTER_GRAD_NORM: outer.update(compute("teacher_gradient").means())}
        return super().step(outer, compute, phase)

    def teacher_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """Gradient of the teacher's cross-entropy on the support, with its metrics."""
        support = episode.support

        def loss_of(own: Params) -> tuple[Tensor, Tensor]:
            outputs = self.told(problem, learned._replace(params=own), support.x, phase)
            return problem.loss(outputs, support.y), outputs

        own = {name: value for name, value in learned.params.items() if is_teacher(name)}
        gradient, (loss, outputs) = gradient_and_value(loss_of, own, has_aux=True)
        return Part(gradient, training_metrics(problem, loss, outputs, support.y, None))

    def training_loss(
        self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase
    ) -> Tensor:
        """ℓ(S, T) = α KD(S, T) + (1 − α) CE."""
        outputs = problem.predict(learned, support.x, phase)
        told = self.told(problem, learned, support.x, phase)
        soft = soft_loss(outputs, told, self.temperatures(learned.params))
        return self.alpha * soft + (1 - self.alpha) * problem.loss(outputs, support.y)

    def told(self, problem: Problem, learned: Learned, x: Inputs, phase: Phase) -> Tensor:
        """The teacher's logits."""
        return problem.of_way(problem.beside(TEACHER, learned, only(x)), phase)


def is_teacher(name: str) -> bool:
    """Whether a learned parameter is one of the teacher."""
    return name.startswith(f"{TEACHER}.")
