"""A model with somebody's support set: it predicts, and says how far to believe that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch

from raymeta.adaptation.outcome import Predictor
from raymeta.algorithms.base import TrainedModel
from raymeta.config.variants import name_of
from raymeta.errors import ConfigError, DataError
from raymeta.tasks.episodes import Examples
from raymeta.tasks.inputs import Inputs, num_examples
from raymeta.tasks.reader import Reader
from raymeta.use.answers import UNKNOWN, Classifier
from raymeta.use.pretrained import Pretrained
from raymeta.use.support import Labelled, labelled_examples, numbered
from raymeta.use.trust import Calibration, Doubt, calibrated, confusions, doubted, held_out, interval, unknown_below


class LeftOut(NamedTuple):
    """What leaving out support examples told."""

    accuracy: float
    low: float
    high: float
    tried: int
    skipped: int
    """examples that are the only ones of their class, which cannot be left out"""
    confusions: list[tuple[str, str, int]]


@dataclass(frozen=True)
class Adapted(Classifier):
    """A pretrained model, a support set and its labels. The probabilities are calibrated where `calibration` is.

    An answer depends on the support set and its own input alone.
    """

    model: Pretrained = field(repr=False)
    support: Examples = field(repr=False)
    classes: list[str]
    names: list[str] = field(repr=False)
    """of the support examples, as they were given"""
    reader: Reader | None = None
    calibration: Calibration | None = None
    unknown_below: float | None = None
    left_out: LeftOut | None = None
    doubts: list[Doubt] = field(default_factory=list)

    why_never_unknown: ClassVar[str] = "the support set is too small to find out how sure right answers are"

    @cached_property
    def predictor(self) -> Predictor:
        return self.model.predictor(self.support, self.way)

    @property
    def temperature(self) -> float:
        return 1.0 if self.calibration is None else self.calibration.temperature


def adapt_to(
    model: Pretrained, x: Inputs, labels: Sequence[str], *, names: Sequence[str] = (), reader: Reader | None = None
) -> Adapted:
    """Adapt `model` to examples x [n, ...] with their labels, and find out how far to trust it.

    x are tensors or numpy arrays in the form and range of the training data: images are floats from 0 to 1.

    Raises `ConfigError` for inputs of another shape or type, fewer than two classes, and where the method cannot take
    so many or adapts to none.
    """
    require_new_classes(model)
    classes, y = numbered(labels)
    if len(classes) < 2:
        raise ConfigError(
            f"there is one class, {classes[0] if classes else 'none'}: give examples of at least two, such as the "
            "thing and anything else"
        )
    if UNKNOWN in classes:
        raise ConfigError(f"a class is called {UNKNOWN}, which is what unsure answers are called: give it another name")
    x = model.inputs(x)
    if num_examples(x) != len(y):
        raise ConfigError(f"there are {num_examples(x)} examples and {len(y)} labels: give each example one")
    support = Examples(x, torch.tensor(y), torch.tensor(y))
    way = len(classes)
    model.predictor(support, way)  # refuses before the long part
    found = held_out(model, support, way)
    calibration = calibrated(found)
    temperature = 1.0 if calibration is None else calibration.temperature
    left_out = None
    if found is not None:
        right, count = int(found.right.sum()), len(found.labels)
        wrong = [(classes[label], classes[answer], times) for label, answer, times in confusions(found)]
        left_out = LeftOut(found.accuracy, *interval(right, count), count, len(y) - count, wrong)
    return Adapted(
        model,
        support,
        classes,
        list(names) or [str(place) for place in range(len(y))],
        reader,
        calibration,
        unknown_below(found, temperature),
        left_out,
        doubted(found, temperature),
    )


def adapt_to_source(model: Pretrained, source: Path, *, label_column: str | None = None) -> Adapted:
    """Adapt `model` to a folder of classes or a labelled table, see `labelled_examples`."""
    require_new_classes(model)
    reader = model.reader
    examples: Labelled = labelled_examples(source, label_column=label_column, read=reader.columns)
    if source.is_dir() != (reader.kind == "pictures"):
        raise DataError(
            f"{source} is {'a folder' if source.is_dir() else 'a file'}, and this model takes {reader.item}s: give "
            + ("a folder with one sub-folder per class" if reader.kind == "pictures" else "a table with labels")
        )
    model = model.fitted_to(examples.items)
    x = model.reader.read(examples.items)
    return adapt_to(model, x, examples.labels, names=examples.names, reader=model.reader)


def require_new_classes(model: Pretrained) -> None:
    """Raises `ConfigError` for a model that does not adapt to classes."""
    if model.tasks.goal != "classification":
        raise ConfigError(
            f"{model.name} predicts values, not classes: adapt it in Python, "
            "raymeta.from_pretrained(MODEL).predictor(support)(x)"
        )
    if isinstance(model.algorithm, TrainedModel):
        raise ConfigError(
            f"{model.name} was trained by {name_of(model.algorithm)} for classes of its own, and adapts to no others: "
            "raymeta predict MODEL FILES answers with these; adapt a model of a method such as protonet or maml"
        )
