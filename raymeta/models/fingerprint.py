"""What a module is made of, as text: two modules of one fingerprint compute the same from the same tensors.

Layers by name and class, their settings and plain attributes, and names, shapes and types of tensors. Objects of other
kinds that a module keeps count by their class alone.
"""

from __future__ import annotations

import hashlib
from types import FunctionType
from typing import Any

from torch import Tensor, nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def fingerprint(module: nn.Module) -> str:
    """A SHA-256 in hexadecimal digits."""
    content: list[Any] = [
        (name, type(child).__module__, type(child).__qualname__, child.training, child.extra_repr(), _attributes(child))
        for name, child in module.named_modules()
    ]
    tensors = [*module.named_parameters(), *module.named_buffers()]
    content += [(name, _described(tensor)) for name, tensor in tensors]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _attributes(module: nn.Module) -> list[tuple[str, object]]:
    return sorted((name, _described(value)) for name, value in vars(module).items() if name not in _OF_EVERY_MODULE)


def _described(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype} {value.requires_grad}"
    if isinstance(value, list | tuple | set):
        return f"{type(value).__name__}{[*map(_described, value)]}"
    if isinstance(value, dict):
        return repr([(_described(key), _described(item)) for key, item in value.items()])
    if isinstance(value, FunctionType):
        return f"{value.__module__}.{value.__qualname__} {value.__code__.co_code.hex()} {value.__code__.co_consts!r}"
    return f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
