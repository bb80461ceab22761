"""What is asked of a worker, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from raymeta.keys import Shard, TaskKey
from raymeta.tree import FloatArray

JobKind = Literal["gradient", "scores"]


class Job(NamedTuple):
    """What to do with a shard: sum its meta-gradients, or score its episodes."""

    kind: JobKind
    inner_steps: int | None = None
    chunk_size: int | None = None  # tasks computed at once; None for all of the shard


class Result(NamedTuple):
    """A shard's outcome. Sums never means; one flat vector whatever the number of tasks."""

    shard: Shard
    vector: FloatArray  # [P + S] sums of meta-gradient and state
    metrics: Mapping[str, float] = {}  # sums over tasks
    scores: Mapping[str, FloatArray] = {}  # [T, K + 1] each
    non_finite: tuple[TaskKey, ...] = ()
    seconds: float = 0.0
    compile_s: float = 0.0  # of them, if this shard was the first of its kind
    phases: Mapping[str, float] = {}  # of them, by name
    pid: int = 0
    rss_bytes: int = 0
