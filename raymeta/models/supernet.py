"""A network of cells in which every edge is a mixture of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.genotype import KINDS, OPERATIONS, Genotype, Kind, OperationName, choice_sizes, derived, first_edge
from raymeta.models.layers.cells import CellNetwork, Edges, Size
from raymeta.models.layers.norm import NormKind
from raymeta.models.shapes import require_images
from raymeta.options import STRICT
from raymeta.tasks.inputs import Shape

START = 1e-3
"""Standard deviation of the architecture parameters at the start."""
FAR = 1e4
"""How far below the others a logit is whose softmax is exactly zero."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CellSpec(ModelSpec):
    """What networks of cells have in common, while they are searched for and afterwards."""

    width: PositiveInt = 16
    """channels of the nodes of the first cell; each reduction doubles them"""
    cells: int = Field(default=8, ge=3)
    """cells of the network; those a third and two thirds of the way halve the image"""
    stem_stride: Literal[1, 2] = 1
    """stride of the first convolution: 2 quarters the pixels of all that follows"""
    norm: NormKind = "batch"
    """`layer` is over channels and pixels"""
    groups: PositiveInt = 8
    """groups of the group norm"""

    def size(self, *, affine: bool) -> Size:
        if self.norm == "group" and self.width % self.groups:
            raise ConfigError(f"model.width {self.width} does not divide into model.groups {self.groups}")
        return Size(self.width, self.cells, self.stem_stride, self.norm, self.groups, affine)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Supernet(CellSpec):
    """The search network of DARTS (Liu et al., ICLR 2019), and the shared weights of ENAS (Pham et al., ICML 2018).

    An edge of a cell is Σ softmax(α)_o · o(x) over all operations o. The architecture parameters α, one [edges,
    operations] for all normal cells and one for all reduction cells, are the parameters `alpha.normal` and
    `alpha.reduction`. Norms have no gain and shift, but for the stem's.

    Differences from DARTS: (1) its CIFAR-10 network has 4 nodes, as the default, and 16 channels; smaller ones are for
    smaller problems. (2) Images of odd size are halved upwards.
    """

    nodes: PositiveInt = 4
    """nodes of a cell"""
    operations: tuple[OperationName, ...] = OPERATIONS
    """what an edge may do"""

    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        channels, _, _ = require_images("supernet", input_shape)
        if len(set(self.operations)) < len(self.operations) or not set(self.operations) - {"none"}:
            raise ConfigError("model.operations must be different ones, at least one of them other than none")
        return SearchNetwork(channels, num_outputs, self.nodes, self.operations, self.size(affine=False))


class SearchNetwork(CellNetwork):
    """A network of cells with all operations on all edges."""

    def __init__(
        self, in_channels: int, num_outputs: int | None, nodes: int, operations: Sequence[OperationName], size: Size
    ) -> None:
        num_edges = first_edge(nodes)
        edges: Edges = {edge: tuple(operations) for edge in range(num_edges)}
        super().__init__(in_channels, num_outputs, dict.fromkeys(KINDS, edges), size)
        self.nodes, self.operations = nodes, tuple(operations)
        shape = (num_edges, len(operations))
        self.alpha = nn.ParameterDict({kind: nn.Parameter(START * torch.randn(shape)) for kind in KINDS})

    def mixing_weights(self) -> Mapping[Kind, Tensor]:
        return {kind: self.alpha[kind].softmax(1) for kind in KINDS}

    def genotype(self, alpha: Mapping[Kind, Tensor]) -> Genotype:
        """The architecture that architecture parameters stand for."""
        return derived({kind: alpha[kind].detach().double().softmax(1).numpy() for kind in KINDS}, self.operations)

    def shares(self, alpha: Mapping[Kind, Tensor]) -> dict[str, Tensor]:
        """Mean weight of each operation over the edges of both kinds of cell."""
        weights = torch.cat([alpha[kind] for kind in KINDS]).softmax(1).mean(0)
        return dict(zip(self.operations, weights.unbind(), strict=True))

    @property
    def choice_sizes(self) -> tuple[int, ...]:
        """Possibilities of each choice that makes up an architecture, see `genotype.chosen`."""
        return choice_sizes(self.nodes, len(self.operations) - 1)

    def alpha_of(self, choices: Tensor) -> dict[Kind, Tensor]:
        """Architecture parameters of choices [4 · nodes · 2]: a softmax of them is exactly one where an operation was
        chosen, or `none` on an edge that was not."""
        halves = choices.long().reshape(len(KINDS), self.nodes, 4).unbind()
        return {kind: self._logits(half) for kind, half in zip(KINDS, halves, strict=True)}

    def _logits(self, choices: Tensor) -> Tensor:
        """Of the choices of a cell [nodes, 4]."""
        first, other, *operations = choices.unbind(1)
        sources = first, other + (other >= first)
        starts = torch.tensor([first_edge(node) for node in range(self.nodes)], device=choices.device)
        none = self.operations.index("none")
        open_edges = self.alpha["normal"].new_zeros(self.alpha["normal"].shape)
        for source, operation in zip(sources, operations, strict=True):
            edge = _one_hot(starts + source, open_edges.shape[0])
            column = _one_hot(operation + (operation >= none), open_edges.shape[1])
            open_edges = open_edges + edge.to(open_edges.dtype).T @ column.to(open_edges.dtype)
        unused = (1 - open_edges.sum(1, keepdim=True)) * _one_hot(
            torch.tensor([none], device=choices.device), open_edges.shape[1]
        )
        logits: Tensor = (open_edges + unused - 1) * FAR
        return logits


def _one_hot(places: Tensor, size: int) -> Tensor:
    return places[:, None] == torch.arange(size, device=places.device)
