"""The ordered fold: shard sums are added along a fixed binary tree, whoever computed them and whenever they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raymeta.engine.job import Result, Rows
from raymeta.keys import Block, TaskKey
from raymeta.tree import Layout, Params


@dataclass(slots=True)
class Total:
    """A sum over some shards, in float64, with the rows of their tasks."""

    num_tasks: int
    vector: NDArray[np.float64]
    metrics: Mapping[str, float]
    non_finite: tuple[TaskKey, ...]
    pieces: tuple[Rows, ...] = ()
    """rows of the shards, in their order; empty where they have none"""
    layout: Layout | None = None
    """of the vector; None where it holds everything learned, until the driver knows"""

    @classmethod
    def of(cls, result: Result) -> Total:
        pieces = (result.rows,) if result.rows else ()
        vector = result.vector.astype(np.float64)
        return cls(result.shard.num_tasks, vector, result.metrics, result.non_finite, pieces, result.layout)

    def __add__(self, other: Total) -> Total:
        metrics = {name: value + other.metrics[name] for name, value in self.metrics.items()}
        return Total(
            self.num_tasks + other.num_tasks,
            self.vector + other.vector,
            metrics,
            self.non_finite + other.non_finite,
            self.pieces + other.pieces,
            self.layout,
        )

    def joined(self) -> Rows:
        """The rows of all tasks, as arrays."""
        names = self.pieces[0] if self.pieces else {}
        return {name: np.concatenate([piece[name] for piece in self.pieces]) for name in names}

    def sums(self) -> Params:
        """Sums over tasks, in float64, by name."""
        return self._named(self.vector)

    def means(self) -> Params:
        """The sums divided by the number of tasks."""
        return self._named(self.vector / self.num_tasks)

    def tasks(self) -> Params:
        """The rows of all tasks [T, ...], copied: what comes from a worker lies in memory that others read."""
        return {name: torch.from_numpy(np.array(value)) for name, value in self.joined().items()}

    def _named(self, vector: NDArray[np.float64]) -> Params:
        assert self.layout is not None
        return self.layout.unflatten(torch.from_numpy(vector.copy()))


class Fold:
    """Sums leaves 0 … n−1 along the binary tree whose node j of level l covers leaves [j·2^l, (j+1)·2^l).

    Blocks may be added in any order; the additions made, and so the bits, are the same. A block is added to its
    sibling as soon as both are there, so only about log n of them wait where leaves come nearly in order, and a node
    (a host) may fold an aligned block of leaves beforehand without changing a bit. Each leaf is to be added once.
    """

    def __init__(self, num_leaves: int) -> None:
        self._num_leaves = num_leaves
        self.waiting: dict[Block, Total] = {}
        self._missing = num_leaves

    def add(self, block: Block, value: Total) -> None:
        """Add the sum of a block of leaves; one leaf is a block of level 0."""
        self._missing -= len(block.positions(self._num_leaves))
        level, index = block
        while self._num_leaves > 1 << level:
            sibling = index ^ 1
            if sibling << level < self._num_leaves:  # else the sibling covers no leaf, and the block moves up as it is
                if (level, sibling) not in self.waiting:
                    break
                other = self.waiting.pop(Block(level, sibling))
                value = value + other if index < sibling else other + value
            level, index = level + 1, index >> 1
        self.waiting[Block(level, index)] = value

    def total(self) -> Total:
        """The sum of all leaves; each must have been added."""
        if self._missing:
            raise ValueError(f"{self._num_leaves - self._missing} of {self._num_leaves} leaves were added")
        (total,) = self.waiting.values()
        return total
