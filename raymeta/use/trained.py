"""A classifier that was trained as one training problem: it knows its classes, and needs no examples of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from raymeta.adaptation.outcome import Predictor
from raymeta.algorithms.base import TrainedModel
from raymeta.config.variants import name_of
from raymeta.errors import ConfigError, DataError, RaymetaWarning
from raymeta.keys import TaskKey
from raymeta.tasks.reader import Reader
from raymeta.use.answers import Classifier
from raymeta.use.pretrained import Pretrained


@dataclass(frozen=True)
class TrainedClassifier(Classifier):
    """A model with the names of the classes that it was trained on.

    Batch norm follows the policy of training: `transductive` uses the examples that are given together.
    """

    model: Pretrained = field(repr=False)
    classes: list[str]
    reader: Reader | None = None
    unknown_below: float | None = None
    why_never_unknown: ClassVar[str] = "nothing was left out of training to find out how sure right answers are"

    @cached_property
    def predictor(self) -> Predictor:
        anything = self.model.tasks.episode(TaskKey(0, "test", 0, 0)).support  # which nothing is learned from
        return self.model.predictor(anything, self.way)


def classifier_of(model: Pretrained, classes: Sequence[str] | None = None) -> TrainedClassifier:
    """The classifier that `model` is, where its method trained it on the classes of one training problem.

    `classes` are the names of labels 0, 1, ...; those of the training data unless given. Where batch norm uses the
    examples that are given together, a `RaymetaWarning` says so.

    Raises `ConfigError` for a model that adapts to classes of somebody's, and for names that are too few or too many;
    `DataError` where the model does not know its names.
    """
    if not isinstance(model.algorithm, TrainedModel) or model.tasks.goal != "classification":
        raise ConfigError(
            f"{model.name} was trained by {name_of(model.algorithm)} and knows no classes: adapt it to some first, "
            "with raymeta adapt MODEL --support DIR --out ADAPTED"
        )
    names = model.tasks.label_names() if classes is None else list(classes)
    if names is None:
        raise DataError(
            f"{model.name} does not know the names of its {model.tasks.num_outputs} classes. Export its run again "
            "where its data are, write `class_name` of its task set, or name them in Python: "
            "raymeta.classifier_of(model, classes=[...])"
        )
    if len(names) != model.tasks.num_outputs:
        raise ConfigError(f"{model.name} has {model.tasks.num_outputs} classes, and {len(names)} names are given")
    if model.batch_norm == "transductive":
        text = (
            f"batch norm of {model.name} uses the examples that are given together, so an answer depends on the "
            "others: give many of all classes at a time, or train with --batch_norm running or another norm"
        )
        warnings.warn(text, RaymetaWarning, stacklevel=2)
    return TrainedClassifier(model, list(names))
