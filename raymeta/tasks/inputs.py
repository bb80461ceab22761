"""Inputs of examples: one tensor [n, *feature], or several by name, which a model takes as keyword arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, cast, overload

import torch
from torch import Tensor

from raymeta.errors import DataError

Inputs: TypeAlias = Tensor | dict[str, Tensor]
"""Of n examples: each tensor has a first dimension of examples; in a batch of episodes, one of tasks before it."""
Shape: TypeAlias = tuple[int, ...] | dict[str, tuple[int, ...]]
"""Of one example: without the dimension of examples."""


@overload
def each_input(function: Callable[..., Tensor], first: Tensor, *rest: Tensor) -> Tensor: ...
@overload
def each_input(function: Callable[..., Tensor], first: Inputs, *rest: Inputs) -> Inputs: ...
def each_input(function: Callable[..., Tensor], first: Inputs, *rest: Inputs) -> Inputs:
    """`function` of every tensor, in its place; all arguments hold the same names."""
    if not isinstance(first, dict):
        return function(first, *rest)
    named = [cast(dict[str, Tensor], other) for other in rest]
    return {name: function(value, *(other[name] for other in named)) for name, value in sorted(first.items())}


def tensors_of(x: Inputs, name: str = "x") -> Iterator[tuple[str, Tensor]]:
    """The tensors with what to call them: `x`, or `x["tokens"]`."""
    if not isinstance(x, dict):  # a person may have given anything
        yield name, x
        return
    for key, value in sorted(x.items()):
        yield f'{name}["{key}"]', value


def num_examples(x: Inputs) -> int:
    """The length of the first dimension."""
    return next(tensors_of(x))[1].shape[0]


def joined(first: Inputs, *rest: Inputs) -> Inputs:
    """Examples of all, one after another."""
    return each_input(lambda *parts: torch.cat(parts), first, *rest)


def copied(x: Inputs) -> Inputs:
    """In memory of their own."""
    return each_input(torch.clone, x)


def equal(one: Inputs, other: Inputs) -> bool:
    """Whether all values are the same."""
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in pairs)


def only(x: Inputs) -> Tensor:
    """The one tensor that inputs are; raises `DataError` where there are several."""
    if isinstance(x, Tensor):
        return x
    raise DataError(f"this method needs inputs of one tensor, and these have several: {', '.join(x)}")


def arguments_of(x: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and keyword arguments of a model's forward."""
    return ((x,), {}) if isinstance(x, Tensor) else ((), x)


def called(model: Callable[..., Any], x: Inputs) -> Any:
    """What `model` returns for x."""
    args, kwargs = arguments_of(x)
    return model(*args, **kwargs)


def shape_of(x: Inputs, skipped: int = 1) -> Shape:
    """Shapes without the first `skipped` dimensions."""
    if isinstance(x, Tensor):
        return tuple(x.shape[skipped:])
    return {name: tuple(value.shape[skipped:]) for name, value in x.items()}


def num_values(shape: Shape) -> int:
    """Numbers that one example consists of."""
    return math.prod(shape) if isinstance(shape, tuple) else sum(map(math.prod, shape.values()))


def zeros(shape: Shape, count: int, dtype: torch.dtype) -> Inputs:
    """`count` examples of zeros."""
    if isinstance(shape, tuple):
        return torch.zeros(count, *shape, dtype=dtype)
    return {name: torch.zeros(count, *one, dtype=dtype) for name, one in shape.items()}


def sizes_text(shape: Shape) -> str:
    """`[n, 3, 84, 84]`, or `tokens [n, 12], mask [n, 12]`, as inputs of n examples are written."""
    if isinstance(shape, tuple):
        return f"[n, {', '.join(map(str, shape))}]" if shape else "[n]"
    return ", ".join(f"{name} {sizes_text(one)}" for name, one in shape.items())
