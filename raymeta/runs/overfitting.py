"""A word where a run does far better on the tasks that it trained on than on those of validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raymeta.trackers.names import (
    TRAIN_QUERY_ACCURACY,
    TRAIN_QUERY_LOSS,
    VAL_ACCURACY,
    VAL_ACCURACY_CI95,
    VAL_MSE,
)
from raymeta.trackers.scores import value_text

Row = Mapping[str, Any]

FAR = 0.1
"""Accuracy on training tasks that is so much above validation, and above its interval, is far above it."""
FAR_ERRORS = 2.0
"""A validation error of so many times the training error is far above it."""
LAST_SHARE = 0.25
"""Training is the mean over this share of the steps before the last validation."""


def overfitting(rows: Sequence[Row], config: Mapping[str, Any]) -> str | None:
    """What to tell of a run with these metric rows and this dotted configuration; None where nothing is far apart.

    Nothing is said where training tasks are of another kind than those of validation, so that they cannot be compared.
    """
    if any(config.get(f"tasks.train_{name}") not in (None, config.get(f"tasks.{name}")) for name in ("way", "shot")):
        return None
    accuracies = _last(rows, TRAIN_QUERY_ACCURACY, VAL_ACCURACY)
    if accuracies is not None:
        (training, validation), last = accuracies, _validations(rows, VAL_ACCURACY)[-1]
        if training - validation > max(FAR, last.get(VAL_ACCURACY_CI95) or 0.0):
            return _text("accuracy", training, validation)
    errors = None if config.get("loss") else _last(rows, TRAIN_QUERY_LOSS, VAL_MSE)
    if errors is not None and errors[1] > FAR_ERRORS * errors[0] > 0:
        return _text("mse", *errors)
    return None


def _validations(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if isinstance(row.get(name), float)]


def _last(rows: Sequence[Row], training: str, validation: str) -> tuple[float, float] | None:
    """The mean of `training` over the steps before the last value of `validation`, and that value."""
    validated = _validations(rows, validation)
    if not validated:
        return None
    end = validated[-1]["step"]
    values = [row[training] for row in rows if (1 - LAST_SHARE) * end < row["step"] <= end and training in row]
    return (sum(values) / len(values), validated[-1][validation]) if values else None


def _text(name: str, training: float, validation: float) -> str:
    return (
        f"{name} is {value_text(name, training)} on training tasks and {value_text(name, validation)} on validation: "
        "what is learned does not carry over; more to train on, a smaller model, outer.weight_decay or fewer "
        "steps may help"
    )
