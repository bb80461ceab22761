"""Labels that are wrong, each by the draws of its own image: the same image has the same wrong label for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from raymeta.tasks.classification.labelled import Ids, Reals

Noise = Literal["none", "uniform_flip", "background_flip", "pair_flip"]
DRAWS = 2
"""Uniform numbers of an image: whether its label is wrong, and which one it gets."""

_WRONG: Mapping[Noise, Callable[[Ids, Reals, int], Ids]] = {
    "uniform_flip": lambda label, u, num_classes: (label + 1 + (u * (num_classes - 1)).astype(np.int64)) % num_classes,
    "background_flip": lambda label, u, num_classes: np.zeros_like(label),
    "pair_flip": lambda label, u, num_classes: (label + 1) % num_classes,
}
"""The label [n] that a true one becomes, by a uniform number [n] of each."""


def given_labels(noise: Noise, share: float, label: Ids, u: Reals, num_classes: int) -> Ids:
    """Labels [n] as a training set has them: true ones, of which each is wrong with probability `share`.

    `uniform_flip` gives any other class alike, `pair_flip` the next one, `background_flip` class 0, whose own labels
    stay right. u [n, 2] are the draws of each image.
    """
    if noise == "none":
        return label
    wrong = u[:, 0] < share
    given: Ids = np.where(wrong, _WRONG[noise](label, u[:, 1], num_classes), label)
    return given
