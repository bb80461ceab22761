"""Architectures of a cell network as text: two incoming edges for each node, an operation on each.

`sep_conv_3@0 skip@1, max_pool_3@0 skip@2 | skip@0 skip@1, ...` is two kinds of cell, normal and reduction, with nodes
apart by commas; `skip@1` is an edge from state 1. States 0 and 1 are the inputs of the cell, state 2 is its first node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from raymeta.keys import TaskKey
from raymeta.system.text import did_you_mean, nearest

OperationName = Literal[
    "none", "skip", "max_pool_3", "avg_pool_3", "sep_conv_3", "sep_conv_5", "dil_conv_3", "dil_conv_5"
]
OPERATIONS: tuple[OperationName, ...] = get_args(OperationName)
Kind = Literal["normal", "reduction"]
KINDS: tuple[Kind, ...] = get_args(Kind)
INCOMING = 2
"""Edges into a node of an architecture."""


class Edge(NamedTuple):
    """An operation on what comes from a state."""

    operation: str
    source: int

    def __str__(self) -> str:
        return f"{self.operation}@{self.source}"


Node = tuple[Edge, ...]


class Genotype(NamedTuple):
    """The nodes of both kinds of cell."""

    normal: tuple[Node, ...]
    reduction: tuple[Node, ...]

    def __str__(self) -> str:
        return " | ".join(", ".join(" ".join(map(str, node)) for node in cell) for cell in self)


def first_edge(node: int) -> int:
    """Number of the first edge into a node, where edges from all earlier states are counted node after node."""
    return node * INCOMING + node * (node - 1) // 2


def parsed(text: str) -> Genotype:
    """The architecture that a text says. Raises `ValueError` where it says none."""
    cells = [tuple(_node(node, number) for number, node in enumerate(c.split(","))) for c in text.split("|")]
    if len(cells) != len(KINDS) or len(cells[0]) != len(cells[1]):
        raise ValueError(
            "an architecture is a normal and a reduction cell of as many nodes, apart by a bar, such as "
            "'skip@0 sep_conv_3@1, skip@0 skip@2 | max_pool_3@0 skip@1, skip@0 skip@2'"
        )
    return Genotype(*cells)


def _node(text: str, number: int) -> Node:
    edges = tuple(_edge(word, number) for word in text.split())
    if len(edges) != INCOMING or len({edge.source for edge in edges}) != INCOMING:
        raise ValueError(f"node {number} of an architecture needs {INCOMING} edges from different states")
    return tuple(sorted(edges, key=lambda edge: edge.source))


def _edge(word: str, number: int) -> Edge:
    operation, _, source = word.partition("@")
    if operation not in OPERATIONS or operation == "none":
        known = [name for name in OPERATIONS if name != "none"]
        hint = did_you_mean(nearest(operation, known), after=" ")
        raise ValueError(f"an edge has no known operation: {hint}choose from {', '.join(known)}")
    if not re.fullmatch(r"\d{1,4}", source) or int(source) >= INCOMING + number:
        raise ValueError(
            f"an edge into node {number} must come from a state below {INCOMING + number}, such as {operation}@0"
        )
    return Edge(operation, int(source))


def derived(weights: Mapping[Kind, NDArray[np.float64]], operations: Sequence[str]) -> Genotype:
    """The architecture of weights [edges, operations] of each kind: the two strongest edges into each node.

    The strength of an edge is the largest weight of its operations other than `none`. The lower state, and the earlier
    operation, wins where they are equal.
    """
    return Genotype(*(tuple(_nodes(weights[kind], operations)) for kind in KINDS))


def _nodes(weights: NDArray[np.float64], operations: Sequence[str]) -> Iterator[Node]:
    allowed = [number for number, name in enumerate(operations) if name != "none"]
    node = 0
    while first_edge(node) < len(weights):
        into = weights[first_edge(node) : first_edge(node + 1)][:, allowed]
        strongest = sorted((-into.max(1)).argsort(kind="stable")[:INCOMING].tolist())
        best = into.argmax(1)
        yield tuple(Edge(operations[allowed[best[source]]], source) for source in strongest)
        node += 1


def choice_sizes(nodes: int, operations: int) -> tuple[int, ...]:
    """Possibilities of each choice that makes up an architecture (`chosen`), both kinds of cell one after another.

    A node takes four: a state, another state, and an operation for the edge from each.
    """
    cell = [size for node in range(nodes) for size in (node + 2, node + 1, operations, operations)]
    return tuple(cell * len(KINDS))


def chosen(choices: Sequence[int], operations: Sequence[str]) -> Genotype:
    """The architecture of choices below `choice_sizes`, where `operations` are those without `none`."""
    nodes = [_chosen_node(choices[place : place + 4], operations) for place in range(0, len(choices), 4)]
    half = len(nodes) // len(KINDS)
    return Genotype(tuple(nodes[:half]), tuple(nodes[half:]))


def _chosen_node(choices: Sequence[int], operations: Sequence[str]) -> Node:
    first, other, operation, other_operation = choices
    second = other + (other >= first)
    edges = Edge(operations[operation], first), Edge(operations[other_operation], second)
    return tuple(sorted(edges, key=lambda edge: edge.source))


def random_genotype(seed: int, nodes: int, operations: Sequence[str]) -> Genotype:
    """An architecture drawn from `seed`: every edge and every operation but `none` alike."""
    known = [name for name in operations if name != "none"]
    sizes = choice_sizes(nodes, len(known))
    u = TaskKey(seed, "train", 0, 0).generator("noise").random(len(sizes))
    return chosen([int(value * size) for value, size in zip(u, sizes, strict=True)], known)
