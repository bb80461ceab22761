"""When episodes are built changes nothing but the time: small ones for several steps in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from raymeta.engine.worker import prefetch
from raymeta.engine.worker.prefetch import STEPS_AT_ONCE, Prefetch
from raymeta.errors import DataError
from raymeta.keys import Shard, TaskKey
from raymeta.tasks.episodes import Episode, num_bytes_of
from raymeta.tasks.images.glyphs import Glyphs
from raymeta.tasks.sinusoid import Sinusoid

STEPS = 40


class Watched(Sinusoid):
    """Notes what was asked for, and fails for tasks of step 5."""

    asked: list[set[int]]
    fails = False

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        self.asked.append({key.step for key in keys})
        if self.fails and any(key.step == 5 for key in keys):
            raise DataError("no task of step 5 today")
        return super().episodes(keys)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(Watched, "asked", [], raising=False)
    return Watched(shot=3, query_shot=4, train_query_shot=2)


def taken(drawing: Prefetch, *, split: Any = "train", steps: int = STEPS) -> list[Episode]:
    shards = [Shard(0, split, step, *part) for step in range(steps) for part in ((0, 3), (3, 5))]
    return [drawing.take(shard) for shard in shards]


def assert_equal(ones: list[Episode], others: list[Episode]) -> None:
    for one, other in zip(ones, others, strict=True):
        for side, same in zip(one, other, strict=True):
            assert all(torch.equal(v, w) for v, w in zip(side, same, strict=True) if v is not None and w is not None), (
                "equal whoever called when"
            )
            described = [[None if v is None else (v.dtype, v.stride()) for v in values] for values in (side, same)]
            assert described[0] == described[1], "a compiler makes one graph of them"


@pytest.mark.parametrize("tasks", [Sinusoid(), Glyphs(way=2, shot=1, query_shot=1)], ids=["sinusoid", "glyphs"])
def test_episodes_of_several_steps_are_those_of_each(tasks: Any) -> None:
    assert_equal(taken(Prefetch(tasks, steps_at_once=True)), taken(Prefetch(tasks, steps_at_once=False)))


def test_small_episodes_are_built_in_few_calls(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "SECONDS_AT_ONCE", 1e6)
    taken(Prefetch(watched, steps_at_once=True))
    # Both shards: the first step alone, which tells the size, then those after it at once.
    first, second = {0}, set(range(1, STEPS_AT_ONCE + 1))
    assert watched.asked[:4] == [first, second, first, second]
    assert len(watched.asked) == 8


def test_what_waits_is_bounded_in_memory_and_time(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "SECONDS_AT_ONCE", 1e6)
    num_bytes = num_bytes_of(Watched.episodes(watched, list(Shard(0, "train", 0, 0, 3).keys())))
    monkeypatch.setattr(prefetch, "BYTES_AT_ONCE", 5 * num_bytes)
    source = Prefetch(watched, steps_at_once=True)
    taken(source)
    assert all(num_bytes_of(episode) == known for episode, known in source.ready.values())
    assert sum(known for _, known in source.ready.values()) == source.ready_bytes <= 5 * num_bytes
    monkeypatch.setattr(prefetch, "SECONDS_AT_ONCE", 0.0)
    watched.asked.clear()
    taken(Prefetch(watched, steps_at_once=True))
    assert watched.asked == [{step} for step in range(STEPS) for _ in range(2)], "slow ones are built when they come"


def test_what_steps_left_behind_is_dropped_and_nothing_else(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "SECONDS_AT_ONCE", 1e6)
    source = Prefetch(watched, steps_at_once=True)
    one, other = Shard(0, "train", 0, 0, 3), Shard(0, "train", 10, 3, 5)
    for shard in (one, other):
        source.take(shard)
    steps = {part: [s.step for s in source.ready if s[3:] == part[3:]] for part in (one, other)}
    assert steps == {one: list(range(10, 33)), other: list(range(11, 43))}


def test_one_task_lies_in_memory_as_when_it_is_built_alone() -> None:
    shards = [Shard(0, "train", step, 0, 1) for step in range(4)]
    tasks = Glyphs(way=2, shot=1, query_shot=1)
    ones = [[d.take(s) for s in shards] for d in (Prefetch(tasks, steps_at_once=True), Prefetch(tasks))]
    assert_equal(*ones)


def test_prepared_episodes_are_built_once_and_taken(watched: Watched) -> None:
    """In the order of a run: the next step's are prepared, then this step's are taken."""
    source = Prefetch(watched)
    for step in range(6):
        source.prepare(Shard(0, "train", step + 1, 0, 3))
        shard = Shard(0, "train", step, 0, 3)
        assert (shard in source.prepared) == (step > 0)
        source.take(shard)
    last = Shard(0, "train", 6, 0, 3)
    assert list(source.prepared) == [last]
    source.take(last)
    source.close()
    assert sorted(min(steps) for steps in watched.asked) == [0, 1, 2, 3, 4, 5, 6]


def test_a_shard_is_built_alone_where_another_may_compute_the_next(watched: Watched) -> None:
    taken(Prefetch(watched, steps_at_once=False))
    assert watched.asked == [{step} for step in range(STEPS) for _ in range(2)]


def test_large_episodes_and_validations_are_built_when_they_come(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(Prefetch(watched, steps_at_once=True), split="val")
    monkeypatch.setattr(prefetch, "BYTES_AT_ONCE", 10)
    taken(Prefetch(watched, steps_at_once=True))
    assert watched.asked == 2 * [{step} for step in range(STEPS) for _ in range(2)]


def test_a_task_that_fails_stops_its_own_step_and_none_before(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "SECONDS_AT_ONCE", 1e6)
    monkeypatch.setattr(Watched, "fails", True)
    source = Prefetch(watched, steps_at_once=True)
    assert len(taken(source, steps=5)) == 10
    assert len(watched.asked) == 11, "after the failure, nothing is built ahead again"
    shard = Shard(0, "train", 5, 0, 3)
    with pytest.raises(DataError, match="step 5"):
        source.take(shard)
