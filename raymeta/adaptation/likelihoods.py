"""What a network can say of a value beside the value itself: a distribution over y, and its likelihood.

Shape suffixes: n values, d dimensions of y, L samples of what they depend on, B bars.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from raymeta.tasks.episodes import Episode, Examples
from raymeta.tasks.inputs import joined

HALF_NORMAL_MEDIAN = 0.6744897501960817
"""Of a half-normal distribution with standard deviation 1."""


class Normals(NamedTuple):
    """Outputs [n, 2d] are the means and what makes the standard deviations of independent normal distributions:
    σ = least + (1 − least) softplus(s). Outputs [n, 2d, L] are a mixture of L of them."""

    least: float = 0.1

    def parameters(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations [n, d] or [n, d, L]."""
        mean, spread = outputs.chunk(2, 1)
        return mean, self.least + (1 - self.least) * F.softplus(spread)

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean over examples of −log p(y)."""
        return -self.log_likelihood(outputs, y).mean()

    def log_likelihood(self, outputs: Tensor, y_nd: Tensor) -> Tensor:
        """log p(y) [n]."""
        if outputs.dim() == 2:
            return normal_log_density(*self.parameters(outputs), y_nd).sum(1)
        mean_ndL, std_ndL = self.parameters(outputs)
        log_nL = normal_log_density(mean_ndL, std_ndL, y_nd[..., None]).sum(1)
        return log_nL.logsumexp(1) - math.log(log_nL.shape[1])

    def point(self, outputs: Tensor) -> Tensor:
        """Means [n, d], over the mixture where there is one."""
        mean, _ = self.parameters(outputs)
        return mean if mean.dim() == 2 else mean.mean(-1)

    def deviation(self, outputs: Tensor) -> Tensor:
        """Standard deviations [n, d], of the mixture where there is one."""
        mean, std = self.parameters(outputs)
        return std if std.dim() == 2 else (std.square().mean(-1) + mean.var(-1, correction=0)).sqrt()


def normal_log_density(mean: Tensor, std: Tensor, y: Tensor) -> Tensor:
    """log N(y; mean, std²), element by element."""
    return -0.5 * ((y - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)


class Bars(NamedTuple):
    """Logits [n, B] are of bars between `borders` [B + 1], which rise: a histogram as density of one value.

    The outermost bars are half-normal tails that begin at their inner borders and have half of their mass up to the
    outer ones, so every y has a density.
    """

    borders: Tensor

    def nll(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean over examples of −log p(y)."""
        return -self.log_density(logits, y).mean()

    def log_density(self, logits_nB: Tensor, y_n1: Tensor) -> Tensor:
        """log p(y) [n]: the mass of the bar that y lies in, and the density within it."""
        place_n1 = (y_n1 >= self.borders[1:-1]).sum(1, keepdim=True)
        low_n, high_n = normal_log_density(self.borders[[1, -2]], self._scales, y_n1).unbind(1)
        within_n = -self.borders.diff().log()[place_n1[:, 0]]
        within_n = torch.where(place_n1[:, 0] == 0, math.log(2) + low_n, within_n)
        within_n = torch.where(place_n1[:, 0] == len(self.borders) - 2, math.log(2) + high_n, within_n)
        return logits_nB.log_softmax(1).gather(1, place_n1)[:, 0] + within_n

    def point(self, logits_nB: Tensor) -> Tensor:
        """Means [n, 1]."""
        return logits_nB.softmax(1) @ self._centres[:, None]

    def deviation(self, logits_nB: Tensor) -> Tensor:
        """Standard deviations [n, 1]."""
        mass, centre = logits_nB.softmax(1), self._centres
        square = centre.square() + self._variances
        return (mass @ square[:, None] - self.point(logits_nB).square()).clamp(min=0).sqrt()

    @property
    def _scales(self) -> Tensor:
        """Standard deviations of the normal distributions that the two tails are halves of [2]."""
        return self.borders.diff()[[0, -1]] / HALF_NORMAL_MEDIAN

    @property
    def _centres(self) -> Tensor:
        """The mean of y in each bar [B]."""
        middle = (self.borders[1:] + self.borders[:-1]) / 2
        low, high = self._scales * math.sqrt(2 / math.pi)
        return torch.cat([(self.borders[1] - low)[None], middle[1:-1], (self.borders[-2] + high)[None]])

    @property
    def _variances(self) -> Tensor:
        """The variance of y in each bar [B]: uniform, and half-normal in the tails."""
        low, high = self._scales.square() * (1 - 2 / math.pi)
        return torch.cat([low[None], self.borders.diff()[1:-1].square() / 12, high[None]])


def bars_of(values: Tensor, count: int) -> Bars:
    """`count` bars of equal mass over `values` [m], whose ends are the least and the largest value."""
    places = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    return Bars(torch.quantile(values.double(), places).to(values.dtype))


def divergence(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """KL of independent normal distributions with means and standard deviations [Z], the first against the second."""
    (mean, std), (other_mean, other_std) = first, second
    ratio = (std / other_std).square()
    return ((((mean - other_mean) / other_std).square() + ratio - 1 - ratio.log()) / 2).sum()


def of_all(episode: Episode) -> Examples:
    """Support and query as one set of targets, the support first."""
    support, query = episode
    return Examples(joined(support.x, query.x), torch.cat([support.y, query.y]))
