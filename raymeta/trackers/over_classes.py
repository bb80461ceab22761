"""The interval of a test over classes: episodes of few classes say little of other classes, however many they are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from raymeta.trackers.scores import value_text

if TYPE_CHECKING:
    from raymeta.tree import FloatArray

FEW_CLASSES: Final = 20
"""With so many test classes or fewer, an interval over episodes is told with one over classes."""
_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
)  # fmt: skip
"""97.5 % quantiles of Student's t with 1 to 19 degrees of freedom."""


class OverClasses(NamedTuple):
    """How many classes the episodes of a test were drawn from, and the half-width of the 95 % interval over them."""

    classes: int
    ci95: float


def over_classes(right: FloatArray, class_id: FloatArray) -> OverClasses:
    """The 95 % interval of the mean over classes, with a class as the unit: t(C − 1) s / √C.

    s is the standard deviation, with ddof 1, of the C shares of queries of each class that were `right` [N, Q] over all
    episodes; `class_id` [N, Q] has their classes. Infinite for a single class.
    """
    import numpy as np  # a command that only names scores needs none

    _, place = np.unique(class_id, return_inverse=True)
    shares = np.bincount(place.ravel(), right.ravel()) / np.bincount(place.ravel())
    count = len(shares)
    if count < 2:
        return OverClasses(count, math.inf)
    return OverClasses(count, _quantile(count - 1) * float(shares.std(ddof=1)) / math.sqrt(count))


def _quantile(freedom: int) -> float:
    """That of Student's t, and beyond the table to the second order about the normal one (Fisher and Cornish 1960)."""
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def classes_text(name: str, found: object) -> str:
    """What a summary's `over_classes` says for people; empty where the test classes were many, or nobody counted.

    `only 5 test classes: the interval over classes is ± 8.40 %; the other one is over episodes of these classes`.
    """
    told = read_over_classes(found)
    if told is None:
        return ""
    counted = f"{told.classes} test class" + "es" * (told.classes != 1)
    if not math.isfinite(told.ci95):
        return f"only {counted}: the interval is one over episodes, and says nothing of other classes"
    half = value_text(name, told.ci95)
    return f"only {counted}: the interval over classes is ± {half}; the other one is over episodes of these classes"


def pairs_text(over_classes: Iterable[object]) -> str:
    """What to say of paired differences, given `over_classes` of the runs; empty where test classes were many."""
    counts = [told.classes for told in map(read_over_classes, over_classes) if told is not None]
    if not counts:
        return ""
    counted = f"{min(counts)} test class" + "es" * (min(counts) != 1)
    return f"only {counted}: the intervals of differences are over episodes of these classes, not over classes"


def read_over_classes(found: object) -> OverClasses | None:
    """What a file says under `over_classes`; None where it says nothing sound."""
    if not isinstance(found, dict):
        return None
    classes, ci95 = found.get("classes"), found.get("ci95")
    if not isinstance(classes, int) or not isinstance(ci95, int | float | None):
        return None
    return OverClasses(classes, math.inf if ci95 is None else ci95)
