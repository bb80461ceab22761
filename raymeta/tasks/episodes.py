"""Examples and episodes, and all algebra on them: stacked, taken apart, cut into chunks, cast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raymeta.errors import DataError


class Examples(NamedTuple):
    """Inputs `x` [n, *feature] with targets `y`: ids in the task [n] (int64) or values [n, d].

    `class_id` [n] holds each example's class in its split, for methods that train on all classes at once.
    In a batch of episodes every tensor has a leading task dimension [T, n, ...].
    """

    x: Tensor
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
        for name in ("x", "y"):
            _require_alike(name, [getattr(examples, name) for examples in side])
        return Examples(
            torch.stack([examples.x for examples in side]),
            torch.stack([examples.y for examples in side]),
            torch.stack(ids) if ids else None,
        )

    return Episode(stack([e.support for e in episodes]), stack([e.query for e in episodes]))


def one_task(examples: Examples, t: int) -> Examples:
    """The examples of task `t` of a batch, without the task dimension."""
    return Examples(examples.x[t], examples.y[t], None if examples.class_id is None else examples.class_id[t])


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
    for t in range(len(episodes.support.x)):
        episode = Episode(one_task(episodes.support, t), one_task(episodes.query, t))
        yield episode, {name: value[t] for name, value in noise.items()}


Noise = dict[str, Tensor]
"""What a task draws besides its episode, by name; drawn from its key, [T, ...] for a batch of tasks."""


def in_chunks(episodes: Episode, noise: Noise, size: int | None) -> Iterator[tuple[Episode, Noise]]:
    """Tasks [T, ...] in pieces of `size`, the last one perhaps shorter; None for one piece of all."""
    num_tasks = len(episodes.support.x)
    size = num_tasks if size is None else min(size, num_tasks)
    if size == num_tasks:
        yield episodes, noise
        return
    for start in range(0, num_tasks, size):
        part = slice(start, start + size)
        sides = [Examples(*(None if v is None else v[part] for v in side)) for side in episodes]  # type: ignore[arg-type]
        yield Episode(*sides), {name: value[part] for name, value in noise.items()}


def each(function: Callable[[Tensor], Tensor], episodes: Episode) -> Episode:
    """`function` of every tensor, in its place."""
    return Episode(*(_Side(*(None if value is None else function(value) for value in side)) for side in episodes))


def in_type(dtype: torch.dtype, episodes: Episode) -> Episode:
    """Floating inputs and targets in the type of a network."""
    return each(lambda value: value.to(dtype) if value.is_floating_point() else value, episodes)


def num_bytes_of(episodes: Episode) -> int:
    return sum(value.nbytes for side in episodes for value in side if value is not None)


def parts_of(episodes: Episode, like: Episode, steps: int) -> Iterator[Episode]:
    """Episodes [steps · size, ...] as `steps` times [size, ...], which lie in memory as `like` does: compilers look
    at that."""
    size = len(like.support.x)
    sides = []
    for side, model in zip(episodes, like, strict=True):
        columns = [_pieces(value, one, size, steps) for value, one in zip(side, model, strict=True)]
        sides.append([_Side(*values) for values in zip(*columns, strict=True)])
    return (Episode(*both) for both in zip(*sides, strict=True))


def _pieces(value: Tensor | None, like: Tensor | None, size: int, steps: int) -> Sequence[Tensor | None]:
    if value is None and like is None:
        return [None] * steps
    if value is None or like is None:
        raise ValueError("what tasks hold differs from step to step")
    pieces: Sequence[Tensor] = torch.split(value, size)
    if pieces[0].stride() == like.stride():
        return pieces
    return [torch.empty_strided(piece.shape, like.stride(), dtype=piece.dtype).copy_(piece) for piece in pieces]


_Side: Callable[..., Examples] = Examples  # of tensors and None, whatever their places
