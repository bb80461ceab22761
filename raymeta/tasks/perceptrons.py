"""A table of real networks: perceptrons that were trained on handwritten digits."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.options import STRICT
from raymeta.tasks.architectures import ArchitectureTable, all_cells

FILE = Path(__file__).with_name("perceptrons.json")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Perceptrons(ArchitectureTable):
    """All 4,096 perceptrons of three hidden layers with one of four widths and one of four activations for each.

    Edges are width and activation of the first layer, then of the second and the third. The accuracy of a network is
    that on 797 held-out digits of scikit-learn after a short training on 1,000, a mean over three starts. It was
    measured once, by `benchmarks/tabular_space.py`, and lies in `perceptrons.json`.
    """

    def table(self) -> tuple[Tensor, Tensor]:
        return _table()


@cache
def _table() -> tuple[Tensor, Tensor]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    cells = all_cells(6, len(content["widths"]))
    accuracies = np.array(content["right"]) / content["asked"]
    return torch.from_numpy(cells).float(), torch.from_numpy(accuracies).float()[:, None]
