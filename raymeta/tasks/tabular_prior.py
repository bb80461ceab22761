"""Tables from random structural causal models: what a method trains on to read tables that it has never seen.

Shape suffixes: N rows, H nodes of a layer, F features, W way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from raymeta.keys import Split, TaskKey
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Examples, Size, stack_episodes
from raymeta.tasks.manifest import Manifest
from raymeta.tasks.sizes import drawn_for_step, size_of
from raymeta.tasks.tables.own_columns import OwnColumns
from raymeta.tree import FloatArray

ACTIVATIONS = (np.tanh, lambda x: np.maximum(x, 0), lambda x: x, np.sin)
"""Functions of a node's causes, one of which is drawn for each layer."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TabularPrior(TaskSet):
    """Classification of rows of made-up tables, after TabPFN (Hollmann et al., ICLR 2023).

    Each task has a causal graph of its own, a network of random layers: a node is a function of some nodes of the layer
    before it, plus noise. Some nodes, of any layer, are the features; one of the last layer is cut into classes at its
    quantiles, whose labels are in random order. The number of features is drawn for each task, and those that are
    missing are 0 in every row. The numbers of classes and of support rows are drawn anew for each training step, all
    tasks of a step alike.

    A trained model reads any table: `raymeta adapt RUN --support rows.csv`, see `OwnColumns`.

    Differences from the paper: classes are equally frequent; all features are numbers; there are no missing values.
    """

    goal: ClassVar[Goal] = "classification"
    unit: ClassVar[str] = "rows"

    way: int = Field(default=2, ge=2)
    """classes of a validation or test task"""
    shot: PositiveInt = 20
    """support rows of a class of a validation or test task"""
    query_shot: PositiveInt = 20
    """query rows of a class"""
    train_ways: tuple[PositiveInt, PositiveInt] | None = None
    """fewest and most classes of a training task; those of `way` unless given"""
    train_shots: tuple[PositiveInt, PositiveInt] = (5, 50)
    """fewest and most support rows of a class of a training task"""
    features: int = Field(default=10, ge=2)
    """most features of a table, and the inputs of a model"""
    depth: PositiveInt = 3
    """most layers of a causal graph after its roots"""
    nodes: int = Field(default=16, ge=2)
    """nodes of a layer"""
    edges: float = Field(default=0.2, gt=0, le=1)
    """probability that a node is a cause of one of the next layer"""
    noise: NonNegativeFloat = 0.1
    """most noise of a node, beside causes of deviation 1"""

    @model_validator(mode="after")
    def _there_are_nodes_enough(self) -> TabularPrior:
        if 2 * self.nodes <= self.features:
            raise ValueError(f"features {self.features} need more than {self.nodes} nodes in each of two layers")
        for name, (least, most) in {"train_shots": self.train_shots, "train_ways": self._ways}.items():
            if least > most:
                raise ValueError(f"{name} goes from {least} to {most}: turn it round")
        if self._ways[0] < 2:
            raise ValueError("train_ways begins below 2: one class is no question")
        return self

    @property
    def _ways(self) -> tuple[int, int]:
        """Fewest and most classes of a training task."""
        return self.train_ways or (self.way, self.way)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.features,)

    @property
    def num_outputs(self) -> int:
        return self.way

    def num_classes(self, split: Split) -> int:
        return self.size(split).way

    def size(self, split: Split) -> Size:
        if split == "train":
            return Size(self._ways[1], self.train_shots[1], self.query_shot)
        return Size(self.way, self.shot, self.query_shot)

    def size_at(self, split: Split, step: int) -> Size:
        if split != "train":
            return self.size(split)
        shot, way = (drawn_for_step(split, step, *c, place=n) for n, c in enumerate((self.train_shots, self._ways)))
        return Size(way, shot, self.query_shot)

    def reader(self, recorded: Manifest | None = None) -> OwnColumns:
        return OwnColumns(features=self.features)

    def episode(self, key: TaskKey) -> Episode:
        way, shot, query_shot = self.size_at(key.split, key.step)
        rng = key.generator()
        x_NF, target_N = self._table(rng, way * (shot + query_shot))
        rows_WN = rng.permuted(target_N.argsort(kind="stable").reshape(way, -1), axis=1)[rng.permutation(way)]
        return Episode(*(_examples(x_NF, part) for part in (rows_WN[:, :shot], rows_WN[:, shot:])))

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        size_of(self, keys)
        return stack_episodes([self.episode(key) for key in keys])

    def _table(self, rng: np.random.Generator, num_rows: int) -> tuple[FloatArray, FloatArray]:
        """Features [N, F] and the node [N] that classes are made of."""
        nodes_NM = self._nodes(rng, num_rows)
        x_NF = nodes_NM[:, rng.permutation(nodes_NM.shape[1] - 1)[: self.features]]
        x_NF[:, rng.integers(2, self.features + 1) :] = 0
        return x_NF, nodes_NM[:, -1]

    def _nodes(self, rng: np.random.Generator, num_rows: int) -> FloatArray:
        """All nodes of a causal graph, with deviation 1, a row each."""
        layers = [rng.standard_normal((num_rows, self.nodes))]
        for _ in range(rng.integers(1, self.depth + 1)):
            weights_HH = rng.standard_normal((self.nodes, self.nodes)) * (
                rng.random((self.nodes, self.nodes)) < self.edges
            )
            caused_NH = ACTIVATIONS[rng.integers(len(ACTIVATIONS))](layers[-1] @ weights_HH)
            noise_NH = self.noise * rng.random() * rng.standard_normal(caused_NH.shape)
            layers.append(_scaled(caused_NH) + noise_NH)
        return np.concatenate(layers, axis=1)


def _scaled(values_NH: FloatArray) -> FloatArray:
    """Columns of mean 0 and deviation 1; those that do not vary become 0."""
    centred: FloatArray = values_NH - values_NH.mean(0)
    deviation_H = centred.std(0)
    return centred / np.where(deviation_H > 1e-9, deviation_H, 1.0)


def _examples(x_NF: FloatArray, rows_Wn: np.ndarray) -> Examples:
    """The rows of each class, classes one after another."""
    x = torch.from_numpy(x_NF[rows_Wn.reshape(-1)].astype(np.float32))
    return Examples(x, torch.arange(len(rows_Wn)).repeat_interleave(rows_Wn.shape[1]))
