"""Examples and episodes, and all algebra on them: stacked, taken apart, cut into chunks, cast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raymeta.errors import DataError
from raymeta.tasks.inputs import Inputs, each_input, tensors_of


class Examples(NamedTuple):
    """Inputs `x` [n, *feature] with targets `y`: ids in the task [n] (int64) or values [n, d].

    `x` may be several tensors by name, {"tokens": [n, 12], "mask": [n, 12]}, which a model takes as keyword arguments.
    `class_id` [n] holds each example's class in its split, for methods that train on all classes at once.
    In a batch of episodes every tensor has a leading task dimension [T, n, ...].
    """

    x: Inputs
    y: Tensor
    class_id: Tensor | None = None


class Episode(NamedTuple):
    """A sampled task: n = way * shot support examples, way * query_shot query examples, disjoint."""

    support: Examples
    query: Examples


class Size(NamedTuple):
    """How large an episode is."""

    way: int
    shot: int
    query_shot: int


def stack_episodes(episodes: Sequence[Episode]) -> Episode:
    """Stack episodes of equal shapes along a leading task dimension."""

    def stack(side: Sequence[Examples]) -> Examples:
        ids = [examples.class_id for examples in side if examples.class_id is not None]
        if 0 < len(ids) < len(side):
            raise DataError("some episodes of this task set have a class_id, others have none: all or none should")
        x = _stacked([examples.x for examples in side])
        _require_alike("y", [examples.y for examples in side])
        return Examples(x, torch.stack([examples.y for examples in side]), torch.stack(ids) if ids else None)

    return Episode(stack([e.support for e in episodes]), stack([e.query for e in episodes]))


def one_task(examples: Examples, t: int) -> Examples:
    """The examples of task `t` of a batch, without the task dimension."""
    return _of_each(lambda value: value[t], examples)


def rows_of(examples: Examples, rows: Tensor | slice) -> Examples:
    """The examples in these places; of a batch, the tasks."""
    return _of_each(lambda value: value[rows], examples)


def _of_each(function: Callable[[Tensor], Tensor], examples: Examples) -> Examples:
    x, y, class_id = examples
    return Examples(each_input(function, x), function(y), None if class_id is None else function(class_id))


def _stacked(inputs: Sequence[Inputs]) -> Inputs:
    """Raises `DataError` for unlike names, shapes and types."""
    names = dict.fromkeys(tuple(sorted(x)) if isinstance(x, dict) else () for x in inputs)
    if len(names) > 1:
        told = " and ".join(", ".join(one) or "one tensor" for one in list(names)[:2])
        raise DataError(f"episodes of one step differ: x is {told}. Give the same inputs in all")
    for columns in zip(*(tensors_of(x) for x in inputs), strict=True):
        _require_alike(columns[0][0], [value for _, value in columns])
    return each_input(lambda *values: torch.stack(values), *inputs)


def _require_alike(name: str, values: Sequence[Tensor]) -> None:
    shapes = dict.fromkeys(tuple(value.shape) for value in values)
    if len(shapes) > 1:
        raise DataError(
            f"episodes of one step differ in size: {name} is {' and '.join(str(list(s)) for s in list(shapes)[:2])}. "
            "Make all of them equal, filled up or cut; what is computed side by side has one shape"
        )
    types = dict.fromkeys(str(value.dtype).removeprefix("torch.") for value in values)
    if len(types) > 1:
        raise DataError(f"episodes of one step differ in type: {name} is {' and '.join(types)}. Give one type in all")


def tasks_of(episodes: Episode, noise: dict[str, Tensor]) -> Iterator[tuple[Episode, dict[str, Tensor]]]:
    """The tasks of a batch one after another."""
    for t in range(len(episodes.support.y)):
        episode = Episode(one_task(episodes.support, t), one_task(episodes.query, t))
        yield episode, {name: value[t] for name, value in noise.items()}


Noise = dict[str, Tensor]
"""What a task draws besides its episode, by name; drawn from its key, [T, ...] for a batch of tasks."""


def in_chunks(episodes: Episode, noise: Noise, size: int | None) -> Iterator[tuple[Episode, Noise]]:
    """Tasks [T, ...] in pieces of `size`, the last one perhaps shorter; None for one piece of all."""
    num_tasks = len(episodes.support.y)
    size = num_tasks if size is None else min(size, num_tasks)
    if size == num_tasks:
        yield episodes, noise
        return
    for start in range(0, num_tasks, size):
        part = slice(start, start + size)
        yield Episode(*(rows_of(side, part) for side in episodes)), {name: value[part] for name, value in noise.items()}


def each(function: Callable[[Tensor], Tensor], episodes: Episode) -> Episode:
    """`function` of every tensor, in its place."""
    return Episode(*(_of_each(function, side) for side in episodes))


def tensors(episode: Episode) -> list[Tensor]:
    """All tensors of an episode or a batch of them, in a fixed order."""
    return [value for side in episode for value in _tensors_of_side(side)]


def _tensors_of_side(side: Examples) -> list[Tensor]:
    ids = [] if side.class_id is None else [side.class_id]
    return [*(value for _, value in tensors_of(side.x)), side.y, *ids]


def in_type(dtype: torch.dtype, episodes: Episode) -> Episode:
    """Floating inputs and targets in the type of a network."""
    return each(lambda value: value.to(dtype) if value.is_floating_point() else value, episodes)


def num_bytes_of(episodes: Episode) -> int:
    return sum(value.nbytes for value in tensors(episodes))


def parts_of(episodes: Episode, like: Episode, steps: int) -> Iterator[Episode]:
    """Episodes [steps · size, ...] as `steps` times [size, ...], which lie in memory as `like` does: compilers look
    at that. Raises `ValueError` where they hold something else than `like`."""
    size = len(like.support.y)
    columns = [_pieces(*pair, size) for pair in zip(tensors(episodes), tensors(like), strict=True)]
    for step in range(steps):
        values = iter([pieces[step] for pieces in columns])
        yield each(lambda _, values=values: next(values), like)  # type: ignore[misc]


def _pieces(value: Tensor, like: Tensor, size: int) -> Sequence[Tensor]:
    pieces: Sequence[Tensor] = torch.split(value, size)
    if pieces[0].stride() == like.stride():
        return pieces
    return [torch.empty_strided(piece.shape, like.stride(), dtype=piece.dtype).copy_(piece) for piece in pieces]
