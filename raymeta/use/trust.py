"""How far to believe an adapted model, from its support set alone: examples are left out, and asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from raymeta.tasks.episodes import Examples, rows_of
from raymeta.use.pretrained import Pretrained

ENOUGH = 20
"""Left-out examples from which on probabilities are calibrated."""
TEMPERATURES = torch.logspace(-1.5, 1.5, 301, dtype=torch.float64)
SURE = 0.8
"""Probability of another class from which on a label is doubted."""
UNKNOWN_SHARE = 0.05
"""Share of rightly answered left-out examples that may be called unknown."""


class HeldOut(NamedTuple):
    """Outputs [m, way] for support examples `places` [m], each by a model that was adapted without it."""

    places: Tensor
    outputs: Tensor
    labels: Tensor
    """of the support examples at `places`"""

    @property
    def right(self) -> Tensor:
        return self.outputs.argmax(1) == self.labels

    @property
    def accuracy(self) -> float:
        return float(self.right.double().mean())


def held_out(model: Pretrained, support: Examples, way: int) -> HeldOut | None:
    """None where no class has a second example, so that nothing can be left out."""
    places, outputs = [], []
    for fold in _folds(support.y):
        kept = torch.ones(len(support.y), dtype=torch.bool)
        kept[fold] = False
        predict = model.predictor(rows_of(support, kept), way)
        with torch.no_grad():
            outputs.append(predict(rows_of(support, fold).x))
        places.append(fold)
    if not places:
        return None
    order = torch.cat(places).argsort()
    found = torch.cat(places)[order]
    return HeldOut(found, torch.cat(outputs)[order].double(), support.y[found])


def _folds(y: Tensor) -> Iterator[Tensor]:
    """Places that are left out together: one of each class, so that those which are kept stay as balanced as they were.
    An only example of its class never is.

    With one left out alone, its class would be the smallest, and methods that fit a head would answer with others.
    """
    by_class = [(y == label).nonzero()[:, 0] for label in range(int(y.max()) + 1)]
    many = [places for places in by_class if len(places) > 1]
    for turn in range(max(map(len, many), default=0)):
        yield torch.stack([places[turn] for places in many if turn < len(places)])


def interval(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), which is one for few examples and for 0 and 100 % too."""
    z = 1.959963984540054
    share, scale = right / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


class Calibration(NamedTuple):
    """A temperature for outputs, and the mean negative log probability of the right class before and after."""

    temperature: float
    before: float
    after: float
    confidence_before: float
    """mean probability of the answers; the accuracy says what it should be"""
    confidence_after: float


def calibrated(found: HeldOut | None) -> Calibration | None:
    """The temperature (Guo et al., ICML 2017) of least loss on left-out examples; None where they are too few.

    Right classes count 1 − 1/(m + 2): where all m answers are right, certainty is not called 100 %.
    """
    if found is None or len(found.labels) < ENOUGH:
        return None
    losses = torch.stack([_loss(found, temperature) for temperature in TEMPERATURES])
    best = float(TEMPERATURES[int(losses.argmin())])

    def confidence(temperature: float) -> float:
        return float((found.outputs / temperature).softmax(1).amax(1).mean())

    before, after = (float(F.cross_entropy(found.outputs / t, found.labels)) for t in (1.0, best))
    return Calibration(best, before, after, confidence(1.0), confidence(best))


def _loss(found: HeldOut, temperature: Tensor) -> Tensor:
    way = found.outputs.shape[1]
    doubt = 1 / (len(found.labels) + 2)
    logs = (found.outputs / temperature).log_softmax(1)
    targets = torch.full_like(logs, doubt / max(way - 1, 1)).scatter(1, found.labels[:, None], 1 - doubt)
    return -(targets * logs).sum(1).mean()


def unknown_below(found: HeldOut | None, temperature: float) -> float | None:
    """Probability below which an answer is called unknown; None where too few left-out answers were right."""
    if found is None:
        return None
    highest = (found.outputs / temperature).softmax(1).amax(1)[found.right]
    return float(torch.quantile(highest, UNKNOWN_SHARE)) if len(highest) >= ENOUGH else None


class Doubt(NamedTuple):
    """A support example whose label is perhaps wrong."""

    place: int
    label: int
    rather: int
    probability: float


def doubted(found: HeldOut | None, temperature: float) -> list[Doubt]:
    """Left-out examples that were surely taken for another class, the surest first."""
    if found is None:
        return []
    highest, answers = (found.outputs / temperature).softmax(1).max(1)
    rows = zip(found.places.tolist(), found.labels.tolist(), answers.tolist(), highest.tolist(), strict=True)
    doubts = [Doubt(*row) for row in rows if row[1] != row[2] and row[3] >= SURE]
    return sorted(doubts, key=lambda doubt: -doubt.probability)


def confusions(found: HeldOut | None) -> list[tuple[int, int, int]]:
    """(class, answer, how often) of wrong answers, the most frequent first."""
    if found is None:
        return []
    wrong: Sequence[tuple[int, int]] = [
        (label, answer)
        for label, answer in zip(found.labels.tolist(), found.outputs.argmax(1).tolist(), strict=True)
        if label != answer
    ]
    return [(label, answer, count) for (label, answer), count in Counter(wrong).most_common()]
