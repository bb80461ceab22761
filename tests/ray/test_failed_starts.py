"""A cluster that cannot start workers is told once, however often it is tried, until the run gives up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from raymeta.engine.executors.placement import Node, PoolOptions
from raymeta.engine.executors.ray_actors.pool import LOSSES_WITHOUT_PROGRESS, Pool
from raymeta.errors import DataError, EnvironmentProblem, RaymetaError, WorkerFailed


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


def cluster() -> Any:
    """One that has room for workers, and starts none."""
    made = MagicMock()
    made.nodes.return_value = [Node("node", {"CPU": 64.0}, {})]
    made.ray.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    made.ray.get.side_effect = RayError("no room for a process")
    made.ray.remote.return_value.options.return_value.remote.side_effect = lambda *parts: MagicMock()
    made.ray.wait.side_effect = lambda references, **_: (references[:1], references[1:])
    return made


def test_starts_that_fail_are_told_once() -> None:
    told: list[str] = []
    pool = Pool(
        cluster(), MagicMock(device="cpu"), PoolOptions(workers=8), lambda kind, message, **_: told.append(message)
    )
    for _ in range(LOSSES_WITHOUT_PROGRESS * 8):
        pool.collect(timeout=0.0)
    with pytest.raises(WorkerFailed, match=r"41 workers were lost .* Ray's own logs"):
        pool.collect(timeout=0.0)
    assert len(told) == 1
    assert "could not start: no room for a process" in told[0]
    assert "shards are computed again" not in told[0]


@pytest.mark.parametrize("kind", [EnvironmentProblem, DataError])
def test_a_machine_that_lacks_something_ends_a_run_that_begins_and_none_that_goes_on(kind: type[RaymetaError]) -> None:
    """Such as a compiler or the data, on a node that joins."""
    told: list[str] = []
    made = cluster()
    made.ray.get.side_effect = RayTaskError(kind("nothing is on node"))

    def begun() -> Pool:
        options = PoolOptions(workers=2)
        return Pool(made, MagicMock(device="cpu"), options, lambda kind, message, **_: told.append(message))

    pool = begun()
    with pytest.raises(kind, match="nothing is on node"):
        pool.collect(timeout=0.0)
    made.ray.get.side_effect = lambda *_: (1, "node")
    pool = begun()
    pool.wait_until_ready()
    pool.lose(pool.seats[0], "was lost")
    made.ray.get.side_effect = RayTaskError(kind("nothing is on node"))
    for _ in range(5):
        pool.collect(timeout=0.0)
    assert len(pool.live()) == 1
    assert [text for text in told if "could not start: nothing is on node" in text] == told[1:]
    assert len(told) == 2
