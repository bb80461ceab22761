"""What a model keeps by itself beside learnable parameters, and how it is put back after its forward wrote there.

Buffers, frozen parameters and plain attributes (tensors, numbers, lists) may be written by a forward: moving averages,
power iterations, counters. A result must not depend on which tasks a process computed before, so each task begins with
what the model was handed over with. Stock layers of torch write nothing and cost nothing here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from raymeta.autodiff.graphs import is_traced
from raymeta.errors import ConfigError

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_STOCK = ("torch.nn.modules.", "raymeta.models.")
_MISSING = object()
Generator = random.Random | np.random.Generator | np.random.RandomState | torch.Generator


class OwnState:
    """The state of some modules, as it was when this was made."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._tables = list(_tables(model))

    def __bool__(self) -> bool:
        """Whether any module could write something."""
        return bool(self._tables)

    def changed(self) -> list[str]:
        """Qualified names of what is other than it was."""
        return [name for table in self._tables for name in table.changed()]

    def generators(self) -> list[str]:
        """Those of `changed` that are random generators, which drew."""
        return [name for table in self._tables for name in table.changed() if table.is_generator(name)]

    def restore(self) -> None:
        """Put everything back."""
        for table in self._tables:
            table.restore()

    def now(self) -> OwnState:
        """The state of now, which `restore` of the answer puts back."""
        return OwnState(self._model)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, the model may write; afterwards everything is as it was."""
        try:
            yield
        finally:
            self.restore()


def _tables(model: nn.Module) -> Iterator[_Table]:
    for name, module in model.named_modules():
        if may_write(module):
            prefix = f"{name}." if name else ""
            frozen = {key for key, p in module._parameters.items() if p is None or not p.requires_grad}
            yield _Table(prefix, vars(module), lambda key: key not in _OF_EVERY_MODULE)
            yield _Table(prefix, module._buffers, lambda key: True)
            yield _Table(prefix, module._parameters, frozen.__contains__)


def may_write(module: nn.Module) -> bool:
    """A class of a person's own, or hooks; the forwards of torch's own layers that are left after conversion do not."""
    return not type(module).__module__.startswith(_STOCK) or bool(module._forward_hooks or module._forward_pre_hooks)


@contextmanager
def unwritten(params: Mapping[str, Tensor]) -> Iterator[None]:
    """Raise `ConfigError` if what runs inside writes any of `params`, which are learned.

    A write through `.data` leaves no trace but the values themselves, and may wait for a condition on them.
    """
    if is_traced():  # which refuses conditions on values
        yield
        return
    before = {name: _plain(value).clone() for name, value in params.items()}
    yield
    for name, value in params.items():
        if not _same(_plain(value), before[name]):
            raise ConfigError(text_of_written(name))


def text_of_written(name: str) -> str:
    """What to say of a forward that writes the learned parameter `name`."""
    return (
        f"the forward of the model writes its own parameter {name}, which is learned: compute the changed values "
        "inside of forward, or register a parametrization (torch.nn.utils.parametrize)"
    )


def _plain(value: Tensor) -> Tensor:
    """The tensor inside of all transforms of torch.func."""
    functorch = cast(Any, torch._C._functorch)
    while functorch.is_functorch_wrapped_tensor(value):
        value = functorch.get_unwrapped(value)
    return value.detach()


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, where NaN equals itself."""
    with cast(Any, torch._C)._DisableFuncTorch():
        return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())


class _Table:
    """Some entries of a dictionary of a module."""

    def __init__(self, prefix: str, entries: dict[str, Any], belongs: Callable[[str], bool]) -> None:
        self._prefix, self._entries, self._belongs = prefix, entries, belongs
        self._before = {key: _Value(value) for key, value in entries.items() if belongs(key)}

    def changed(self) -> list[str]:
        keys = {*self._before, *filter(self._belongs, self._entries)}
        return sorted(self._prefix + key for key in keys if self._is_other(key))

    def restore(self) -> None:
        for key, before in self._before.items():
            if self._is_other(key):
                self._entries[key] = before.value
                before.restore()
        if len(self._entries) > len(self._before):
            for key in [key for key in self._entries if self._belongs(key) and key not in self._before]:
                del self._entries[key]

    def is_generator(self, name: str) -> bool:
        return isinstance(self._entries.get(name.removeprefix(self._prefix)), Generator)

    def _is_other(self, key: str) -> bool:
        before = self._before.get(key)
        return before is None or self._entries.get(key, _MISSING) is not before.value or before.was_written()


class _Value:
    """An object, and what was in it where it can be written in place."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self._content: Any = None
        self._version = 0
        if isinstance(value, Tensor):
            self._content, self._version = value.detach().clone(), value._version
        elif isinstance(value, list | dict | set | deque | np.ndarray):
            self._content = value.copy()
        elif isinstance(value, Generator):
            self._content = _state_of(value)

    def was_written(self) -> bool:
        if isinstance(self.value, Tensor):
            return self.value._version != self._version
        if isinstance(self.value, np.ndarray):
            return not np.array_equal(self.value, self._content, equal_nan=self.value.dtype.kind in "fc")
        if isinstance(self.value, Generator):
            return repr(_state_of(self.value)) != repr(self._content)
        if isinstance(self.value, dict):
            return self.value.keys() != self._content.keys() or _are_others(self.value.values(), self._content.values())
        if isinstance(self.value, list | deque):
            return _are_others(self.value, self._content)
        return isinstance(self.value, set) and self.value != self._content

    def restore(self) -> None:
        if isinstance(self.value, Tensor):
            with torch.no_grad():
                self.value.copy_(self._content)
            self._version = self.value._version
        elif isinstance(self.value, np.ndarray):
            np.copyto(self.value, self._content)
        elif isinstance(self.value, Generator):
            _set_state(self.value, self._content)
        elif isinstance(self.value, dict | set):
            self.value.clear()
            self.value.update(self._content)
        elif isinstance(self.value, list | deque):
            self.value.clear()
            self.value.extend(self._content)


def _state_of(generator: Generator) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return [*map(_exact, generator.get_state())]
    return generator.get_state().numpy().tobytes()


def _set_state(generator: Generator, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(tuple(state))
    else:
        generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _exact(part: Any) -> Any:
    """With all its numbers where it is printed, too."""
    return part.tolist() if isinstance(part, np.ndarray) else part


def _are_others(values: Any, before: Any) -> bool:
    return len(values) != len(before) or any(one is not other for one, other in zip(values, before, strict=True))
