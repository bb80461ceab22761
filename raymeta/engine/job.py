"""What is asked of a worker, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from raymeta.algorithms.base import TASK_GRADIENT
from raymeta.keys import Shard, TaskKey
from raymeta.tree import Array, FloatArray, Layout

JobKind = Literal["gradient", "scores"]


class Job(NamedTuple):
    """What to do with a shard: sum what a method of the algorithm gives for its tasks, or score its episodes."""

    kind: JobKind
    inner_steps: int | None = None
    chunk_size: int | None = None  # tasks computed at once; None for all of the shard
    function: str = TASK_GRADIENT  # the method, where it is summed
    step: int | None = None  # the outer step, where the tasks are those of another

    @property
    def name(self) -> str:
        """What takes as long as others of this name."""
        return self.function if self.kind == "gradient" else self.kind


class Payload(NamedTuple):
    """What goes to every worker for one map, and is only read."""

    learned: FloatArray  # [P + S], parameters and state in the blueprint's layouts
    given: Mapping[str, Array] = {}  # made by the driver for this map

    @property
    def nbytes(self) -> int:
        return self.learned.nbytes + sum(value.nbytes for value in self.given.values())


Rows = Mapping[str, Array]
"""Tensors of some tasks [T, ...], by name."""


class Result(NamedTuple):
    """A shard's outcome. Sums never means; one flat vector whatever the number of tasks."""

    shard: Shard
    vector: FloatArray  # sums: [P + S] of meta-gradient and state, or what `layout` says
    metrics: Mapping[str, float] = {}  # sums over tasks
    rows: Rows = {}  # task by task; scores are [T, K + 1] each
    layout: Layout | None = None  # of the vector, where it is not that of everything learned
    non_finite: tuple[TaskKey, ...] = ()
    seconds: float = 0.0
    compile_s: float = 0.0  # of them, if this shard was the first of its kind
    phases: Mapping[str, float] = {}  # of them, by name
    pid: int = 0
    rss_bytes: int = 0
