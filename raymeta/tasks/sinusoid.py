"""Sinusoid regression, the toy task distribution of the MAML paper."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from raymeta.options import STRICT
from raymeta.tasks.functions import Functions
from raymeta.tree import FloatArray

AMPLITUDE, PHASE = (0.1, 5.0), (0.0, np.pi)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sinusoid(Functions):
    """y = A sin(x − p) with A ~ U[0.1, 5], p ~ U[0, π], x ~ U[−5, 5] (Finn et al. 2017, section 5.1).

    All splits share the distribution; their keys differ. Predicting zero has expected squared error 4.2517, and no
    predictor that does not adapt is below 3.0057.
    """

    num_draws: ClassVar[int] = 2

    def values(self, draws: FloatArray, x: FloatArray) -> FloatArray:
        amplitude, phase = (
            low + (high - low) * draws[:, i : i + 1] for i, (low, high) in enumerate((AMPLITUDE, PHASE))
        )
        result: FloatArray = amplitude * np.sin(x - phase)
        return result
