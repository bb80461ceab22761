"""When episodes are built changes nothing but the time: small ones for several steps in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from raymeta.engine import drawing
from raymeta.engine.drawing import STEPS_AT_ONCE, Drawing
from raymeta.errors import DataError
from raymeta.keys import Shard, TaskKey
from raymeta.tasks.base import Episode
from raymeta.tasks.glyphs import Glyphs
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


def taken(drawing: Drawing, *, split: Any = "train", steps: int = STEPS) -> list[Episode]:
    shards = [Shard(0, split, step, *part) for step in range(steps) for part in ((0, 3), (3, 5))]
    return [drawing.take(shard, list(shard.keys())) for shard in shards]


def assert_equal(ones: list[Episode], others: list[Episode]) -> None:
    for one, other in zip(ones, others, strict=True):
        for side, same in zip(one, other, strict=True):
            assert all(torch.equal(v, w) for v, w in zip(side, same, strict=True) if v is not None and w is not None), (
                "equal whoever called when"
            )
            assert [v is None for v in side] == [w is None for w in same]


@pytest.mark.parametrize("tasks", [Sinusoid(), Glyphs(way=2, shot=1, query_shot=1)], ids=["sinusoid", "glyphs"])
def test_episodes_of_several_steps_are_those_of_each(tasks: Any) -> None:
    assert_equal(taken(Drawing(tasks, steps_at_once=True)), taken(Drawing(tasks, steps_at_once=False)))


def test_small_episodes_are_built_in_few_calls(watched: Watched) -> None:
    taken(Drawing(watched, steps_at_once=True))
    # Both shards: the first step alone, which tells the size, then those after it at once.
    first, second = {0}, set(range(1, STEPS_AT_ONCE + 1))
    assert watched.asked[:4] == [first, second, first, second]
    assert len(watched.asked) == 8


def test_a_shard_is_built_alone_where_another_may_compute_the_next(watched: Watched) -> None:
    taken(Drawing(watched, steps_at_once=False))
    assert watched.asked == [{step} for step in range(STEPS) for _ in range(2)]


def test_large_episodes_and_validations_are_built_when_they_come(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(Drawing(watched, steps_at_once=True), split="val")
    monkeypatch.setattr(drawing, "BYTES_AT_ONCE", 10)
    taken(Drawing(watched, steps_at_once=True))
    assert watched.asked == 2 * [{step} for step in range(STEPS) for _ in range(2)]


def test_a_task_that_fails_stops_its_own_step_and_none_before(watched: Watched) -> None:
    Watched.fails = True
    try:
        source = Drawing(watched, steps_at_once=True)
        assert len(taken(source, steps=5)) == 10
        shard = Shard(0, "train", 5, 0, 3)
        with pytest.raises(DataError, match="step 5"):
            source.take(shard, list(shard.keys()))
    finally:
        Watched.fails = False
