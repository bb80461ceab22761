"""What every classifier gives, whether it was adapted to its classes or trained on them: labels with probabilities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from raymeta.adaptation.outcome import Predictor
from raymeta.errors import ConfigError, DataError
from raymeta.tasks.inputs import Inputs, each_input, num_examples
from raymeta.tasks.reader import Reader
from raymeta.use.pretrained import AT_ONCE, Pretrained

UNKNOWN = "unknown"
"""The label of an answer that is not sure enough."""


class Prediction(NamedTuple):
    """The answer for one example."""

    label: str
    probability: float
    alternatives: list[tuple[str, float]]
    """the other labels, likeliest first"""

    def as_json(self, name: str) -> dict[str, Any]:
        """The one form of an answer for other programs; `name` is that of the example."""
        others = [{"label": label, "probability": p} for label, p in self.alternatives]
        return {"file": name, "label": self.label, "probability": self.probability, "alternatives": others}


class Classifier(ABC):
    """Base of what answers with one of its `classes`."""

    model: Pretrained
    classes: list[str]
    reader: Reader | None
    """of examples; the model's own unless given"""
    unknown_below: float | None
    """probability below which an answer may be called unknown; None where that was not found out"""
    why_never_unknown: ClassVar[str]
    """why it was not"""

    @property
    def way(self) -> int:
        return len(self.classes)

    @property
    @abstractmethod
    def predictor(self) -> Predictor:
        """Inputs [n, ...] of the model's type to logits [n, way]."""

    @property
    def temperature(self) -> float:
        """What logits are divided by before the softmax."""
        return 1.0

    def outputs(self, x: Inputs) -> Tensor:
        """Logits [n, way] for inputs [n, ...]."""
        with torch.no_grad():
            parts = [self.predictor(part) for part in _parts(self.model.inputs(x))]
        return torch.cat(parts)

    def probabilities(self, x: Inputs) -> Tensor:
        """Of each class [n, way], in the order of `classes`."""
        return (self.outputs(x).double() / self.temperature).softmax(1)

    def predict(self, x: Inputs, *, unknown: bool = False) -> list[Prediction]:
        """The answer for each input; with `unknown`, what is less sure than `unknown_below` gets that label.

        Raises `ConfigError` where that was never found out, and `DataError` where the network has no answer.
        """
        return self._answers(x, unknown=unknown)

    def _answers(self, x: Inputs, *, unknown: bool, start: int = 0) -> list[Prediction]:
        """For inputs of which the first is number `start`, counted from 0."""
        if unknown and self.unknown_below is None:
            raise ConfigError(f"what is unknown cannot be told: {self.why_never_unknown}")
        threshold = (self.unknown_below or 0.0) if unknown else 0.0
        probabilities = self.probabilities(x)
        if (lost := (~probabilities.isfinite().all(1)).nonzero()).numel():
            raise DataError(
                f"the network of {self.model.name} has no finite answer to example {start + int(lost[0]) + 1}: its "
                "values are far outside what the network learned from"
            )
        return [self._answer(row, threshold) for row in probabilities]

    def predict_files(self, files: Sequence[Any], *, unknown: bool = False) -> Iterator[Prediction]:
        """The answers for items that the model's reader reads, some at a time."""
        reader = self.reader or self.model.reader
        for start in range(0, len(files), AT_ONCE):
            yield from self._answers(reader.read(files[start : start + AT_ONCE]), unknown=unknown, start=start)

    def _answer(self, row: Tensor, threshold: float) -> Prediction:
        order = row.argsort(descending=True, stable=True).tolist()
        ranked = [(self.classes[place], float(row[place])) for place in order]
        (label, probability), *others = ranked
        if probability < threshold:
            return Prediction(UNKNOWN, 1 - probability, ranked)
        return Prediction(label, probability, others)


def _parts(x: Inputs) -> Iterator[Inputs]:
    for start in range(0, max(num_examples(x), 1), AT_ONCE):
        yield each_input(lambda value, start=start: value[start : start + AT_ONCE], x)
