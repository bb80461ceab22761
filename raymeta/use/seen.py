"""What the training examples looked like, in a few numbers that a person understands: is an example like those?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raymeta.errors import DataError
from raymeta.keys import TaskKey
from raymeta.tasks.base import TaskSet
from raymeta.tasks.inputs import Inputs, num_examples

EPISODES = 64
"""Training episodes that are looked at."""
OUTSIDE = 0.005
"""Share of the training examples that lies below, and above, what counts as usual."""


class Seen(NamedTuple):
    """The usual range of each property of a training example, by its name for people."""

    ranges: dict[str, tuple[float, float]]

    def unlike(self, x: Inputs) -> list[str | None]:
        """For each example what is unusual of it, or None; a property counts as far beyond its range as half of it."""
        found: list[str | None] = [None] * num_examples(x)
        for name, values in properties(x).items():
            if name not in self.ranges:
                continue
            low, high = self.ranges[name]
            slack = (high - low) / 2
            for place, value in enumerate(values.tolist()):
                if found[place] is None and not low - slack <= value <= high + slack:
                    found[place] = f"{name} {value:.2g}, where training examples have {low:.2g} to {high:.2g}"
        return found


def properties(x: Inputs) -> dict[str, Tensor]:
    """Of pictures [n, c, h, w] brightness, contrast, detail and colour; of other numbers their values; of ids none."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or not len(x):
        return {}
    if x.dim() == 4:
        rough = (x.diff(dim=-1).abs().mean((1, 2, 3)) + x.diff(dim=-2).abs().mean((1, 2, 3))) / 2
        found = {"brightness": x.mean((1, 2, 3)), "contrast": x.flatten(1).std(1), "detail": rough}
        return found if x.shape[1] != 3 else found | {"colour": x.std(1).mean((1, 2))}
    flat = x.flatten(1)
    return {"mean value": flat.mean(1), "largest value": flat.abs().amax(1)}


def seen_in(tasks: TaskSet, seed: int = 0) -> Seen | None:
    """Ranges over the first training episodes; None where the data are not here, or nothing can be said of them."""
    try:
        episodes = tasks.episodes([TaskKey(seed, "train", 0, index) for index in range(EPISODES)])
    except (DataError, OSError):
        return None
    sides: Sequence[Inputs] = [side.x for side in episodes]
    if not all(isinstance(side, Tensor) for side in sides):
        return None
    values = torch.cat([side.flatten(0, 1) for side in sides if isinstance(side, Tensor)])
    quantiles = torch.tensor([OUTSIDE, 1 - OUTSIDE], dtype=torch.float64)
    found = {name: torch.quantile(value.double(), quantiles).tolist() for name, value in properties(values).items()}
    return Seen({name: (low, high) for name, (low, high) in found.items()}) if found else None
