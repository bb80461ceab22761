"""`aggregate: node`: sums of whole blocks of shards are made on the node that computed them.

A block's sum is the one the driver would make, in float64 along the same tree, so no bit changes; it weighs as much as
two shards in float32. Blocks of fewer than `LEAST_LEAVES` shards therefore travel raw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from raymeta.engine.fold import Fold, Total
from raymeta.engine.job import Result
from raymeta.keys import Block
from raymeta.tree import FloatArray

LEAST_LEAVES = 3
"""Fewer float32 leaves are lighter than their float64 sum, or as light."""
LEAST_BYTES = 100_000
"""Ray sends smaller results with the reply, so there is nothing to save."""


class NodeFolder:
    """An actor without a device, one on each node, that sums results lying there."""

    def fold(self, leaves: list[Result], *vectors: FloatArray) -> tuple[Result, FloatArray]:
        """The sum of consecutive shards, which are all the shards of one block."""
        fold = Fold(len(leaves))
        for i, (leaf, vector) in enumerate(zip(leaves, vectors, strict=True)):
            fold.add(Block(0, i), Total.of(leaf._replace(vector=vector)))
        total = fold.total()
        shard = leaves[0].shard._replace(stop=leaves[-1].shard.stop)
        phases = sum((Counter(leaf.phases) for leaf in leaves), Counter[str]())
        info = Result(
            shard,
            nothing(),
            metrics=total.metrics,
            rows=total.joined(),
            layout=total.layout,
            non_finite=total.non_finite,
            phases=dict(phases),
        )
        return info, total.vector


class Folders:
    """The folders of all nodes, made when first needed."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._actors: dict[str, Any] = {}

    def fold(self, node: str, leaves: list[Result], vectors: list[Any]) -> tuple[Any, Any]:
        """Ask `node` for the sum; returns the references of its description and of its vector."""
        if node not in self._actors:
            strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": strategy}
            self._actors[node] = self._ray.remote(NodeFolder).options(**options).remote()
        info, vector = self._actors[node].fold.options(num_returns=2).remote(leaves, *vectors)
        return info, vector

    def forget(self, node: str) -> None:
        """A folder failed: the next sum there is asked of a new one."""
        if actor := self._actors.pop(node, None):
            self._ray.kill(actor)

    def close(self) -> None:
        for node in list(self._actors):
            self.forget(node)


def block_level(num_shards: int, num_nodes: int) -> int:
    """Level of the blocks given to nodes as a whole: the largest of which each node gets one."""
    return max(0, (num_shards // max(1, num_nodes)).bit_length() - 1)


def whole_blocks(prepared: Mapping[int, str], level: int, num_nodes: int) -> dict[int, str]:
    """Owners of positions, block by block, from the nodes that prepared them: who has most of a block gets all of it.

    Left to who prepared it, a shard that one node took from another's block would stay there step after step, until no
    block lay on one node. No node gets more than its share of blocks.
    """
    blocks: dict[int, Counter[str]] = {}
    for position, node in prepared.items():
        blocks.setdefault(position >> level, Counter())[node] += 1
    share, given = -(-len(blocks) // max(1, num_nodes)), Counter[str]()
    owners: dict[int, str] = {}
    for index, nodes in sorted(blocks.items(), key=lambda item: (-max(item[1].values()), item[0])):
        owner = next((node for node, _ in nodes.most_common() if given[node] < share), None)
        if owner is not None:
            given[owner] += 1
            owners |= dict.fromkeys(range(index << level, (index + 1) << level), owner)
    return owners


def split(block: Block, nodes: Mapping[int, str], num_shards: int) -> Iterator[Block]:
    """Cut a computed block into the largest blocks that lie on one node, and into single shards.

    `nodes` says where each position was computed.
    """
    positions = block.positions(num_shards)
    if not positions:
        return
    on_one_node = len({nodes[p] for p in positions}) == 1
    if block.level == 0 or (on_one_node and len(positions) >= LEAST_LEAVES):
        yield block
        return
    for half in block.halves():
        yield from split(half, nodes, num_shards)


def nothing() -> FloatArray:
    """The vector of a result whose vector travels apart."""
    return np.zeros(0, np.float32)
