"""A mixture of four families of functions, for methods that find out which family a task is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from raymeta.keys import TaskKey, uniforms
from raymeta.options import STRICT
from raymeta.tasks.functions import Functions
from raymeta.tree import FloatArray

Family = Literal["sinusoid", "line", "quadratic", "cubic"]
RANGES: Mapping[str, tuple[tuple[float, float], ...]] = MappingProxyType(
    {
        "sinusoid": ((0.1, 5.0), (0.8, 1.2), (0.0, 2 * np.pi)),
        "line": ((-3.0, 3.0), (-3.0, 3.0)),
        "quadratic": ((-0.2, 0.2), (-2.0, 2.0), (-3.0, 3.0)),
        "cubic": ((-0.1, 0.1), (-0.2, 0.2), (-2.0, 2.0), (-3.0, 3.0)),
    }
)
"""Of each family's coefficients: A, ω and b of A sin(ωx) + b; of polynomials those of the highest power first."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mixture(Functions):
    """Each task is of one of four families, all equally likely (Yao et al., ICML 2019, section 5.1), x ~ U[−5, 5]:
    A sin(ωx) + b, Ax + b, Ax² + bx + c and Ax³ + bx² + cx + d, with coefficients from fixed ranges.

    As in the authors' code b is outside of the sine. All splits share the distribution; their keys differ.
    """

    num_draws: ClassVar[int] = 1 + max(map(len, RANGES.values()))

    families: tuple[Family, ...] = Field(default=get_args(Family), min_length=1)
    """families that tasks are drawn from"""

    def family(self, key: TaskKey) -> Family:
        """The family that the task of `key` is of."""
        return self._family(float(uniforms([key], 1)[0, 0]))

    def values(self, draws: FloatArray, x: FloatArray) -> FloatArray:
        families = [self._family(float(draw)) for draw in draws[:, 0]]
        rows = zip(families, draws[:, 1:], x, strict=True)
        return np.stack([value(family, coefficients(family, own), points) for family, own, points in rows])

    def _family(self, draw: float) -> Family:
        return self.families[int(draw * len(self.families))]


def coefficients(family: Family, draws: FloatArray) -> list[float]:
    """From numbers in [0, 1) to the ranges of a family."""
    return [low + (high - low) * float(draw) for (low, high), draw in zip(RANGES[family], draws, strict=False)]


def value(family: Family, coefficients: Sequence[float], x: FloatArray) -> FloatArray:
    """y at x."""
    if family == "sinusoid":
        amplitude, frequency, shift = coefficients
        result: FloatArray = amplitude * np.sin(frequency * x) + shift
    else:
        result = np.polyval(np.asarray(coefficients), x)
    return result
