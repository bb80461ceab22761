"""`Params`, a dictionary of named tensors, and the few operations everything else is built from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Params: TypeAlias = dict[str, Tensor]
FloatArray = NDArray[np.floating]
Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a `Params` in the order in which it lies in a flat vector."""

    shapes: dict[str, tuple[int, ...]]
    sizes: list[int] = field(init=False, repr=False, compare=False)
    """elements of each tensor; made at once, as a compiler that enters `unflatten` takes no lock of a cache"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", [math.prod(shape) for shape in self.shapes.values()])

    @classmethod
    def of(cls, params: Mapping[str, Tensor]) -> Layout:
        return cls({name: tuple(value.shape) for name, value in params.items()})

    @cached_property
    def size(self) -> int:
        return sum(self.sizes)

    def flatten(self, params: Mapping[str, Tensor]) -> Tensor:
        """One vector [size] holding all tensors in this layout's order."""
        if not self.shapes:
            return torch.zeros(0)
        return torch.cat([params[name].reshape(-1) for name in self.shapes])

    def unflatten(self, vector: Tensor) -> Params:
        """Views into `vector` [size] under their names and shapes."""
        pieces = vector.split_with_sizes(self.sizes)
        return {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}


def tree_map(function: Callable[..., Tensor], first: Params, *rest: Params) -> Params:
    """Apply `function` name by name; all arguments hold the same names."""
    return {name: function(value, *(other[name] for other in rest)) for name, value in first.items()}


def select(params: Params, patterns: tuple[str, ...]) -> Params:
    """The entries whose name matches one of the shell-style `patterns`."""
    if "*" in patterns:
        return dict(params)
    return {name: value for name, value in params.items() if any(fnmatchcase(name, p) for p in patterns)}


def outer_type(dtype: torch.dtype) -> torch.dtype:
    """In which parameters of this type are stepped, sent and stored: half precision would lose small steps."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def detach(params: Params) -> Params:
    return {name: value.detach() for name, value in params.items()}


def params_sha256(params: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes in name order: equal exactly when the parameters are."""
    digest = hashlib.sha256()
    for name in sorted(params):
        value = params[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tuple(value.shape)}|{value.dtype}|".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
