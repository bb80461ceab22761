"""Sizes that are drawn anew for each outer step, all tasks of a step alike."""

from __future__ import annotations

from collections.abc import Sequence

from raymeta.errors import DataError
from raymeta.keys import Split, TaskKey, uniforms
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Size

_INDEX = 2**64 - 1
"""Index of the key that a step's first size is drawn from, which no task has; others come before it."""


def drawn_for_step(split: Split, step: int, least: int, most: int, *, place: int = 0) -> int:
    """A whole number from `least` to `most`, the same in any process; each `place` has a draw of its own."""
    ((draw,),) = uniforms([TaskKey(0, split, step, _INDEX - place)], 1)
    return least + int(draw * (most - least + 1))


def size_of(tasks: TaskSet, keys: Sequence[TaskKey]) -> Size:
    """The one size that the tasks of `keys` have; raises `DataError` where they are of steps of several."""
    sizes = {tasks.size_at(split, step) for split, step in {(key.split, key.step) for key in keys}}
    if len(sizes) > 1:
        raise DataError(f"{type(tasks).__name__}: tasks of these steps differ in size; ask for one step at a time")
    return sizes.pop()
