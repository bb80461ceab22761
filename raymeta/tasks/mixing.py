"""Training tasks that are made of others: MetaMix with channel shuffle, and MLTI.

Everything that is drawn follows from the task's key, as uniform numbers taken at once. What can only be done inside a
network is written into the inputs, which then are several tensors by name (`raymeta.models.layers.mixing_points`).

Shape suffixes: T tasks, n examples, W way, k examples of each class, P places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymeta.errors import DataError
from raymeta.keys import TaskKey, uniforms
from raymeta.tasks.episodes import Episode, Examples
from raymeta.tasks.inputs import Inputs, only
from raymeta.tasks.mixed_inputs import (
    GROUPS,
    INPUT,
    NUM_GROUPS,
    OWN,
    PARTNER,
    PARTNER_TWIN,
    PICKED,
    SHARE,
    TWIN,
    mixture,
)

MixingName = Literal["metamix", "mlti"]
Reals = NDArray[np.float64]
Whole = NDArray[np.int64]

PARTNERS = 2**40
"""Added to a task's index: the key of the task that it is mixed with, which no run trains on by itself."""
WITH_ITSELF = 0.5
"""How often a task is mixed with itself under other pairs of classes."""


class Draws(NamedTuple):
    """All that is random about mixing T tasks."""

    share: Reals
    """λ [T], of the task itself"""
    place: Whole
    """where is mixed [T], 0 for the input"""
    alone: NDArray[np.bool_]
    """whether a task is mixed with itself [T]"""
    shuffled: NDArray[np.bool_]
    """whether channels are shuffled [T]"""
    shuffled_place: Whole
    """where [T]"""
    group: Whole
    """which group [T]"""
    queries: Whole
    """an order of the queries [T, Q]"""
    pairs: Whole
    """the class that each class is mixed with [T, W]"""
    twins: Whole
    """the class that each class gets channels from [T, W]"""


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How training tasks are made of others.

    MetaMix: Yao, Huang, Zhang, Wei, Tian, Zou, Huang, Li. Improving Generalization in Meta-learning via Task
    Augmentation. ICML 2021. At one place of the network, drawn for each task, the features of each query become
    λ h_Q + (1 − λ) h_S with those of a support example, λ ~ Beta(a, a), both by the adapted network; its loss is
    λ L(y_Q) + (1 − λ) L(y_S). Channel shuffle: at another place, one group of channels of every example of class c,
    support and query alike, is that of class c'; the label stays c.

    MLTI: Yao, Zhang, Finn. Meta-Learning with Fewer Tasks through Task Interpolation. ICLR 2022. Support and query of a
    task become λ h + (1 − λ) h' with those of another task, at one place; classes are paired at random, and each pair
    is a new class. Where targets are numbers, they are mixed too.

    Differences from the papers:
    1. λ, the place and whether channels are shuffled are drawn for each task, in place of each iteration.
    2. A partner of MLTI is a task of its own, drawn by a key that follows from the task's, in place of the next one of
       the batch: so a task does not depend on who is computed beside it.
    3. MLTI interpolates; the authors' code for images cuts a box of that share out of the other features.
    4. A class may be its own partner in channel shuffle.
    5. There may be more queries than support examples, which are then used in turn.
    6. Channels are grouped as the paper's 64 are, by shares of a layer's number.
    """

    name: MixingName
    beta: int = 2
    """a of Beta(a, a): the a-th smallest of 2a − 1 uniform numbers"""
    places: tuple[str, ...] = (INPUT,)
    """the input, and the layers after which is mixed"""
    with_input: bool = True
    """whether inputs themselves may be mixed"""
    shuffle: float = 0.0
    """probability of a channel shuffle"""
    shuffle_after: int = 0
    """outer steps before the first one"""

    def __call__(
        self, episodes: Episode, keys: Sequence[TaskKey], others: Callable[[Sequence[TaskKey]], Episode]
    ) -> Episode:
        """The episodes of `keys` [T, ...] mixed; `others` gives those of further keys."""
        draws = self.draws(keys, episodes)
        if self.name == "metamix":
            return self.metamix(episodes, draws)
        partners = others([key._replace(index=key.index + PARTNERS) for key in keys])
        return self.mlti(episodes, partners, draws)

    @property
    def gives_two_labels(self) -> bool:
        """Whether a query may have two labels, which only matters where it has labels."""
        return self.name == "metamix"

    def draws(self, keys: Sequence[TaskKey], episodes: Episode) -> Draws:
        """All that is random about mixing these tasks."""
        num_query, num_classes = episodes.query.y.shape[1], _num_classes(episodes)
        sizes = [2 * self.beta - 1, 5, num_query, num_classes, num_classes]
        shares, single, queries, pairs, twins = np.split(
            uniforms(keys, sum(sizes), "mixing"), np.cumsum(sizes)[:-1], axis=1
        )
        late = np.array([key.step >= self.shuffle_after for key in keys])
        first, hidden = int(not self.with_input), len(self.places) - 1
        return Draws(
            share=np.sort(shares, axis=1)[:, self.beta - 1],
            place=first + (single[:, 0] * (1 + hidden - first)).astype(np.int64),
            alone=single[:, 1] < WITH_ITSELF,
            shuffled=(single[:, 2] < self.shuffle) & late,
            shuffled_place=1 + (single[:, 3] * hidden).astype(np.int64),
            group=(single[:, 4] * NUM_GROUPS).astype(np.int64),
            queries=queries.argsort(axis=1, kind="stable"),
            pairs=pairs.argsort(axis=1, kind="stable"),
            twins=twins.argsort(axis=1, kind="stable"),
        )

    def metamix(self, episodes: Episode, draws: Draws) -> Episode:
        """Queries mixed with support examples; where they have labels, y [T, Q, 3] holds both labels and λ."""
        support, query = episodes
        x, picked = only(support.x), draws.queries % support.y.shape[1]
        query_x = self._mixed(only(query.x), x, draws, picked)
        share = torch.from_numpy(draws.share)
        y = _mixed_targets(query.y, _rows(support.y, picked), share)
        if self.shuffle and isinstance(query_x, dict):
            twin_S, twin_Q = (aligned(side.y, side.y, draws.twins) for side in episodes)
            groups = self._groups(draws).to(x.dtype)
            query_x |= {GROUPS: _repeated(groups, twin_Q), TWIN: torch.from_numpy(twin_Q)}
            query_x |= {PARTNER_TWIN: torch.from_numpy(twin_S)}
            own: Inputs = {OWN: x, GROUPS: _repeated(groups, twin_S), TWIN: torch.from_numpy(twin_S)}
            support = support._replace(x=own)
        return Episode(support, Examples(query_x, y))

    def mlti(self, episodes: Episode, others: Episode, draws: Draws) -> Episode:
        """Both sides mixed with those of other tasks, or with themselves under other pairs of classes."""
        return Episode(*(self._interpolated(*sides, draws) for sides in zip(episodes, others, strict=True)))

    def _interpolated(self, own: Examples, other: Examples, draws: Draws) -> Examples:
        if own.y.is_floating_point():
            y = _mixed_targets(own.y, other.y, torch.from_numpy(draws.share))
            return Examples(self._mixed(only(own.x), only(other.x), draws), y)
        both = [_rows(only(side.x), aligned(own.y, side.y, draws.pairs)) for side in (own, other)]
        alone = torch.from_numpy(draws.alone)
        partner = torch.where(alone.view(-1, *[1] * (both[0].dim() - 1)), both[0], both[1])
        return Examples(self._mixed(only(own.x), partner, draws), own.y)

    def _mixed(self, x: Tensor, partner: Tensor, draws: Draws, picked: Whole | None = None) -> Inputs:
        """Mixed at once where that is in the input alone; else with all that the network needs for it."""
        share = np.ones((len(x), x.shape[1], len(self.places)))
        share[np.arange(len(x)), :, draws.place] = draws.share[:, None]
        shares = torch.from_numpy(share).to(x.dtype)
        if len(self.places) == 1:
            other = partner if picked is None else _rows(partner, picked)
            return mixture(x.flatten(0, 1), other.flatten(0, 1), shares.flatten()).view_as(x)
        mixed: dict[str, Tensor] = {OWN: x, PARTNER: partner, SHARE: shares}
        return mixed if picked is None else {**mixed, PICKED: torch.from_numpy(picked)}

    def _groups(self, draws: Draws) -> Tensor:
        """[T, P, G]: 1 for the group that is shuffled, if any."""
        groups = np.zeros((len(draws.group), len(self.places), NUM_GROUPS))
        groups[np.arange(len(groups)), draws.shuffled_place, draws.group] = draws.shuffled
        return torch.from_numpy(groups)


def aligned(y: Tensor, other_y: Tensor, pairs: Whole) -> Whole:
    """For each example [T, n] of class c, which is the k-th of it: where the k-th of class `pairs[c]` is in the others.

    Raises `DataError` unless all classes have as many examples.
    """
    own, other = (_by_class(labels.numpy(), pairs.shape[1]) for labels in (y, other_y))
    theirs = np.take_along_axis(other, pairs[:, :, None], 1)
    found = np.empty(y.shape, np.int64)
    np.put_along_axis(found, own.reshape(len(own), -1), theirs.reshape(len(own), -1), 1)
    return found


def _by_class(y: Whole, way: int) -> Whole:
    """Where the examples of each class are [T, W, k]."""
    order = y.argsort(axis=1, kind="stable")
    expected = np.arange(way).repeat(y.shape[1] // way)
    if expected.shape != y.shape[1:] or (np.take_along_axis(y, order, 1) != expected).any():
        raise DataError("mixing pairs examples by class, and the classes of a task have unlike numbers of them")
    return order.reshape(len(y), way, -1)


def _num_classes(episodes: Episode) -> int:
    """0 where targets are numbers. Raises `DataError` for several labels of one example."""
    y = episodes.support.y
    if y.is_floating_point():
        return 0
    if y.dim() > 2:
        raise DataError(f"mixing needs one label for each example, and here y is {list(y.shape[1:])}")
    return int(y.max()) + 1


def _rows(values: Tensor, places: Whole) -> Tensor:
    """Of each task the examples in these places [T, n]."""
    return values[torch.arange(len(values))[:, None], torch.from_numpy(places)]


def _repeated(groups_TPG: Tensor, like: Whole) -> Tensor:
    return groups_TPG[:, None].expand(-1, like.shape[1], -1, -1)


def _mixed_targets(y: Tensor, other: Tensor, share_T: Tensor) -> Tensor:
    """Numbers mixed as inputs are; labels [T, n] as both of them and λ [T, n, 3]."""
    share = share_T.view(-1, *[1] * (y.dim() - 1))
    if y.is_floating_point():
        return (share * y + (1 - share) * other).to(y.dtype)
    return torch.stack([y.double(), other.double(), share.expand(y.shape)], -1)
