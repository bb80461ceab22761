"""Scores of an evaluation: the mean with its interval, paired differences, and their text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from raymeta.tree import FloatArray

ScoreName = Literal["accuracy", "mse"]


class Scores(NamedTuple):
    """One evaluation: the metric's mean over episodes, with the half-width of its 95 % interval.

    `per_step` [inner steps + 1] holds the mean before adapting and after each inner step. Accuracies lie in [0, 1].
    """

    name: ScoreName
    per_step: list[float]
    value: float
    ci95: float
    episodes: int
    others: Mapping[str, float] = MappingProxyType({})
    """means of a person's own metrics after the last inner step, by name"""

    def metrics(self) -> dict[str, float]:
        """As metrics of the validation split."""
        own = {f"val/{name}": value for name, value in self.others.items()}
        return {f"val/{self.name}": self.value, f"val/{self.name}_ci95": self.ci95} | own


def score_text(name: str, value: float, ci95: float | None = None) -> str:
    """For people: `accuracy 97.31 ± 0.42 %`, `mse 0.0312 ± 0.0021`; of a single episode there is no interval."""
    if ci95 is not None and not math.isfinite(ci95):
        ci95 = None
    if name.endswith("accuracy"):
        interval = "" if ci95 is None else f" ± {100 * ci95:.2f}"
        return f"{name} {100 * value:.2f}{interval} %"
    interval = "" if ci95 is None else f" ± {ci95:.3g}"
    return f"{name} {value:.4g}{interval}"


def half_width(values: FloatArray) -> float:
    """Of the mean's 95 % interval: 1.96 s / sqrt n, s with ddof 1; infinite for a single value."""
    return 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def paired(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean of `second` − `first` over the same episodes, and the half-width of its 95 % interval (1.96 s / √n)."""
    import numpy as np  # a command that only names scores needs none

    difference = np.asarray(second, float) - np.asarray(first, float)
    if len(difference) < 2:
        return float(difference.mean()), float("inf")
    return float(difference.mean()), 1.96 * float(difference.std(ddof=1)) / len(difference) ** 0.5
