"""Networks of cells, whose edges mix operations while an architecture is searched and have one each in the end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from raymeta.models.genotype import INCOMING, Kind, Node, first_edge
from raymeta.models.layers.convolution import Conv2d
from raymeta.models.layers.norm import NormKind, make_norm, name_norms
from raymeta.models.layers.operations import MAKE, Halve, Shape, conv_1x1

STEM = 3
"""How many times as many channels the stem has as the first cell's nodes."""
Edges = Mapping[int, Sequence[str]]
"""Operations on the edges of a cell that are there, by the numbers of these edges."""


class Size(NamedTuple):
    """Hyper-parameters of a network of cells."""

    width: int
    num_cells: int
    stem_stride: int
    norm: NormKind
    groups: int
    affine: bool

    def kind(self, cell: int) -> Kind:
        """Cells a third and two thirds of the way halve the image and double the channels."""
        return "reduction" if cell in (self.num_cells // 3, 2 * self.num_cells // 3) else "normal"


class Mixture(nn.ModuleDict):
    """The weighted sum of operations by name; of a single one without weights its outputs."""

    def forward(self, x: Tensor, weights: Tensor | None) -> Tensor:
        outputs = [operation(x) for operation in self.values()]
        if weights is None:
            return cast(Tensor, sum(outputs))
        return cast(Tensor, sum(weight * z for weight, z in zip(weights.unbind(), outputs, strict=True)))


class Cell(nn.Module):
    """Two earlier images to the nodes of a cell, one after another in the channels.

    A node is the sum of its incoming edges, which come from the two inputs and the nodes before it.
    """

    def __init__(self, inputs: tuple[nn.Module, nn.Module], edges: Edges, shape: Shape, *, reduces: bool) -> None:
        super().__init__()
        self.before, self.last = inputs
        self.edges = nn.ModuleDict()
        self.into: list[list[tuple[int, int]]] = []
        node = 0
        while any(edge >= first_edge(node) for edge in edges):
            found = [(edge, edge - first_edge(node)) for edge in sorted(edges) if _node_of(edge) == node]
            for edge, source in found:
                own = shape._replace(stride=2 if reduces and source < INCOMING else 1)
                self.edges[str(edge)] = Mixture({name: MAKE[name](own) for name in edges[edge]})
            self.into.append(found)
            node += 1

    def forward(self, before: Tensor, last: Tensor, weights: Tensor | None) -> Tensor:
        states = [self.before(before), self.last(last)]
        for incoming in self.into:
            parts = [
                self.edges[str(edge)](states[source], None if weights is None else weights[edge])
                for edge, source in incoming
            ]
            states.append(cast(Tensor, sum(parts)))
        return torch.cat(states[INCOMING:], 1)


def _node_of(edge: int) -> int:
    node = 0
    while first_edge(node + 1) <= edge:
        node += 1
    return node


def edges_of(cell: Sequence[Node]) -> Edges:
    """The edges of an architecture."""
    return {first_edge(number) + edge.source: [edge.operation] for number, node in enumerate(cell) for edge in node}


def num_nodes(edges: Edges) -> int:
    return _node_of(max(edges)) + 1


class CellNetwork(nn.Module):
    """A stem, cells, the mean over pixels and a `head`: images [n, channels, h, w] to [n, num_outputs]."""

    def __init__(self, in_channels: int, num_outputs: int | None, edges: Mapping[Kind, Edges], size: Size) -> None:
        super().__init__()
        stem = Conv2d(in_channels, STEM * size.width, 3, size.stem_stride, padding=1, bias=False)
        norm = make_norm(size.norm, STEM * size.width, size.groups)
        self.stem = nn.Sequential(OrderedDict(conv=stem, norm=norm))
        self.kinds = [size.kind(number) for number in range(size.num_cells)]
        self.cells = nn.ModuleList()
        features = self._add_cells(edges, size)
        self.head = nn.Identity() if num_outputs is None else nn.Linear(features, num_outputs)
        name_norms(self)

    def _add_cells(self, edges: Mapping[Kind, Edges], size: Size) -> int:
        """The cells; returns the channels of the last one."""
        before = last = STEM * size.width
        shape, reduced = Shape(size.width, 1, size.norm, size.groups, size.affine), False
        for kind in self.kinds:
            reduces = kind == "reduction"
            shape = shape._replace(channels=shape.channels * (2 if reduces else 1))
            first = Halve(before, shape) if reduced else conv_1x1(before, shape)
            self.cells.append(Cell((first, conv_1x1(last, shape)), edges[kind], shape, reduces=reduces))
            before, last, reduced = last, num_nodes(edges[kind]) * shape.channels, reduces
        return last

    def forward(self, x: Tensor) -> Tensor:
        weights = self.mixing_weights()
        before = last = self.stem(x)
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            before, last = last, cell(before, last, weights.get(kind))
        outputs: Tensor = self.head(last.mean((2, 3)))
        return outputs

    def mixing_weights(self) -> Mapping[Kind, Tensor]:
        """Weights of the operations [edges, operations] for each kind of cell; none where every edge has one."""
        return {}
