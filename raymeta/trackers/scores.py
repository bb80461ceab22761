"""Scores of an evaluation: the table of all scores, the mean with its interval, paired differences, and their text."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

from raymeta.trackers.axes import INNER_STEP, Axis, AxisName
from raymeta.trackers.names import VAL_ACCURACY, VAL_LOSS, VAL_MSE

if TYPE_CHECKING:
    from raymeta.tree import FloatArray

ScoreName = Literal["accuracy", "mse", "nll", "loss", "return", "regret", "success", "rmse"]
EPISODES: Final = "episodes"
BATCHES: Final = "batches"
"""what a mean is over, of a training problem that is one for all"""
V = TypeVar("V")


class Score(NamedTuple):
    """What is to be known of a score to rank by it, draw it and print it."""

    better: Literal["max", "min"]
    percent: bool
    """whether people see it in per cent; files hold shares from 0 to 1"""
    column: str
    """its name among a run's metrics, where it is computed on validation tasks"""
    title: str = ""
    """its name in a sentence or beside an axis"""

    @property
    def sign(self) -> int:
        """1 where more is better, else -1: a score times its sign is larger where it is better."""
        return 1 if self.better == "max" else -1

    @property
    def word(self) -> Literal["higher", "lower"]:
        """Which is better, as a run's headline says it."""
        return "higher" if self.better == "max" else "lower"

    @property
    def scale(self) -> float:
        """Factor between a value in a file and one that people see."""
        return 100.0 if self.percent else 1.0

    @property
    def unit(self) -> str:
        """Title of an axis: `accuracy in %`, `squared error`."""
        return f"{self.title} in %" if self.percent else self.title


SCORES: Final[Mapping[str, Score]] = MappingProxyType(
    {
        "accuracy": Score("max", True, VAL_ACCURACY, title="accuracy"),
        "mse": Score("min", False, VAL_MSE, title="squared error"),
        "nll": Score("min", False, "val/nll", title="negative log-likelihood"),
        "loss": Score("min", False, VAL_LOSS, title="loss"),
        "return": Score("max", False, "val/return", title="return"),
        "regret": Score("min", False, "val/regret", title="regret"),
        "success": Score("max", True, "val/success", title="success"),
        "rmse": Score("min", False, "val/rmse", title="root mean squared error"),
    }
)
"""Every score there is, by name."""
LOSS: Final = "loss"
OF_GOAL: Final[Mapping[str, ScoreName]] = MappingProxyType({"classification": "accuracy", "regression": "mse"})
"""The score of a run by the goal of its tasks."""
_OF_VALIDATION = "val/"


def score_named(name: str) -> Score:
    """The score called `name`; of a name that is not in the table, as files of others may hold, less is better."""
    return SCORES.get(name) or Score("min", False, _OF_VALIDATION + name, title=name)


def score_in(metric: str) -> Score | None:
    """The score that a metric such as `val/accuracy`, `train/query_accuracy` or `val/mse_ci95` is a value of."""
    name = metric.rpartition("/")[2].removesuffix("_ci95").removeprefix("query_").removeprefix("support_")
    return SCORES.get(name)


def name_in(column: str) -> str:
    """`accuracy` of `val/accuracy`."""
    return column.removeprefix(_OF_VALIDATION)


def is_of_validation(metric: str) -> bool:
    """Whether a metric was computed on validation tasks."""
    return metric.startswith(_OF_VALIDATION)


def headline_name(names: Collection[str]) -> ScoreName:
    """The score that episodes are ranked by, given the names of all their values."""
    return next((name for name in OF_GOAL.values() if name in names), OF_GOAL["regression"])


def values_of(name: str, values: Mapping[str, V]) -> V | None:
    """What `values` holds of a score. A loss stands for the error that it is, unless that was computed too."""
    return values.get(name, values.get(LOSS))


def rank(headline: Mapping[str, Any]) -> float:
    """The value of a run's headline, turned so that larger is better; NaN where there is none."""
    better = headline.get("better", score_named(str(headline.get("name"))).word)
    value = float(headline.get("value", math.nan))
    return value if better == "higher" else -value


class Scores(NamedTuple):
    """One evaluation: the metric's mean over episodes, with the half-width of its 95 % interval.

    `per_step` [inner steps + 1] holds the mean before adapting and after each inner step, or along what else `axis`
    names; a method without inner steps has one. Accuracies lie in [0, 1].
    """

    name: ScoreName
    per_step: list[float]
    value: float
    ci95: float
    episodes: int
    others: Mapping[str, float] = MappingProxyType({})
    """means of a person's own metrics after the last inner step, by name"""
    axis: AxisName = INNER_STEP
    of: str = EPISODES
    """what the mean is over: episodes, or batches of one training problem"""

    @property
    def text(self) -> str:
        """For people: `accuracy 97.31 ± 0.42 % over 600 episodes`."""
        return f"{score_text(self.name, self.value, self.ci95)} {over_text(self._asdict())}"

    def metrics(self) -> dict[str, float]:
        """As metrics of the validation split."""
        own = {_OF_VALIDATION + name: value for name, value in self.others.items()}
        column = score_named(self.name).column
        return {column: self.value, f"{column}_ci95": self.ci95} | own


def drawn_in(one_problem: bool) -> str:
    """What examples are drawn in: episodes, or batches where all tasks are one training problem."""
    return BATCHES if one_problem else EPISODES


def over_text(headline: Mapping[str, Any]) -> str:
    """What a mean was taken over: `over 600 episodes`; older runs name no unit."""
    number, of = headline.get("episodes"), headline.get("of", EPISODES)
    if number == 1:
        return f"over 1 {'batch' if of == BATCHES else 'episode'}"
    return f"over {number:,} {of}" if isinstance(number, int) else f"over ? {of}"


def score_text(name: str, value: float, ci95: float | None = None) -> str:
    """For people: `accuracy 97.31 ± 0.42 %`, `mse 0.0312 ± 0.0021`; of a single episode there is no interval."""
    return f"{name} {value_text(name, value, ci95)}"


def value_text(name: str, value: float, ci95: float | None = None) -> str:
    """The same without the name: `97.31 ± 0.42 %`, `0.0312 ± 0.0021`."""
    if ci95 is not None and not math.isfinite(ci95):
        ci95 = None
    if score_named(name).percent:
        interval = "" if ci95 is None else f" ± {100 * ci95:.2f}"
        return f"{100 * value:.2f}{interval} %"
    interval = "" if ci95 is None else f" ± {ci95:.3g}"
    return f"{value:.4g}{interval}"


def difference_text(name: str, difference: float, ci95: float) -> str:
    """Of a paired difference: `difference in accuracy 1.20 ± 0.42 %`."""
    return f"difference in {name} {value_text(name, difference, ci95)}"


def span_text(name: str, per_step: Sequence[float], between: str) -> str:
    """Several values of a score, with its unit once, at the end: `20.10 -> 97.31 %`."""
    *values, last = (value_text(name, value).removesuffix(" %") for value in per_step)
    return between.join([*values, last]) + (" %" if score_named(name).percent else "")


def half_width(values: FloatArray) -> float:
    """Of the mean's 95 % interval: 1.96 s / sqrt n, s with ddof 1; infinite for a single value."""
    return 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def paired(first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray) -> tuple[float, float]:
    """Mean of `second` − `first` over the same episodes, and the half-width of its 95 % interval."""
    import numpy as np  # a command that only names scores needs none

    difference = np.asarray(second, float) - np.asarray(first, float)
    return float(difference.mean()), half_width(difference)


def better_before(name: str, axis: Axis | None, scores: Sequence[float], ci95: float) -> str:
    """A note where a score after fewer inner steps is better than the last one by more than the last one's interval.

    `it scores 63.10 % after 1 inner step, better than at the end: --inner-steps 1 of raymeta evaluate tests that`.
    """
    if axis is None or axis.place != INNER_STEP or len(scores) < 3:
        return ""
    sign = score_named(name).sign
    best = max(range(1, len(scores)), key=lambda place: sign * scores[place])
    if not sign * (scores[best] - scores[-1]) > ci95:
        return ""
    return (
        f"it scores {value_text(name, scores[best])} {axis.end(best + 1)}, better than at the end: raymeta evaluate "
        f"--inner-steps {best} tests that, algorithm.test_inner_steps {best} makes it the rule"
    )
