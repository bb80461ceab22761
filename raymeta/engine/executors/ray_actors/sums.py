"""Results that stay on their node until a whole block of them can be summed there (`aggregate: node`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from raymeta.engine.executors.base import Tell
from raymeta.engine.executors.ray_actors.cluster import first_lines
from raymeta.engine.executors.ray_actors.folding import Folders, split
from raymeta.engine.executors.ray_actors.request import Call, Request
from raymeta.engine.job import Result
from raymeta.keys import Block


@dataclass(eq=False)
class NodeSum:
    """A sum asked of a node, or one shard that is fetched from it as it is."""

    request: Request
    block: Block
    node: str
    leaves: list[Result]
    info: Any = None  # reference to the sum's description; None for a single shard
    asked: float = field(default_factory=time.monotonic)


class NodeSums:
    """The sums that are asked for and have not come yet."""

    def __init__(self, ray: Any, tell: Tell) -> None:
        self._ray, self._tell = ray, tell
        self._folders = Folders(ray)
        self._asked: dict[Any, NodeSum] = {}

    @property
    def references(self) -> list[Any]:
        """What to wait for."""
        return list(self._asked)

    def add(self, call: Call, result: Result) -> None:
        """A shard is computed; once all of its block is, the block's sum is asked for where it lies."""
        request, num_shards = call.request, len(call.request.shards)
        request.computed[call.position] = call, result
        if block := request.complete_block(call.position):
            nodes = {p: request.computed[p][0].seat.node for p in block.positions(num_shards)}
            for part in split(block, nodes, num_shards):
                self._ask(request, part)

    def take(self, reference: Any) -> None:
        """Deliver what `reference` stands for, where it is a sum."""
        asked = self._asked.pop(reference, None)
        if asked is None:
            return
        try:
            vector = self._ray.get(reference)
            info = asked.leaves[0] if asked.info is None else self._ray.get(asked.info)
        except self._ray.exceptions.RayError as error:
            self._lost(asked, first_lines(error))
        else:
            asked.request.deliver(asked.block, info._replace(vector=vector))

    def give_up_late(self, now: float, hung_after: Callable[[str], float]) -> None:
        """Do again what a node has not answered for so many seconds, by kind of job."""
        for reference, asked in list(self._asked.items()):
            if now - asked.asked > hung_after(asked.request.job.name):
                del self._asked[reference]
                self._lost(asked, "no answer")

    def close(self) -> None:
        self._folders.close()

    def _ask(self, request: Request, block: Block) -> None:
        """Ask for a block's sum where it lies; a single shard comes as it is."""
        waited = [request.computed.pop(p) for p in block.positions(len(request.shards))]
        calls, leaves = [call for call, _ in waited], [result for _, result in waited]
        node = calls[0].seat.node
        if len(calls) == 1:
            self._asked[calls[0].vector] = NodeSum(request, block, node, leaves)
            return
        info, vector = self._folders.fold(node, leaves, [call.vector for call in calls])
        self._asked[vector] = NodeSum(request, block, node, leaves, info)

    def _lost(self, asked: NodeSum, reason: str) -> None:
        """The sum or its parts are gone: compute them again, wherever."""
        if asked.request.forgotten:
            return
        self._tell("result_lost", f"sums on a node were lost ({reason}): their shards are computed again")
        self._folders.forget(asked.node)
        asked.request.compute_again(asked.block)
