"""A module as a function of its parameters and buffers."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.func import functional_call

from raymeta.autodiff.own_state import may_write
from raymeta.tree import Params


class AsFunction:
    """Calls `module` with `values` in place of its parameters and buffers of these names, as `functional_call` does.

    torch's function looks for every tensor by its name in every call, which takes longer than a small layer. Here the
    places are found once, for networks that write nothing and have each tensor under one name; other networks are
    called by torch's function. A submodule must not be replaced afterwards, and `values` must hold no other names.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        kinds = module.named_parameters, module.named_buffers
        self.names = frozenset(name for kind in kinds for name, _ in kind())
        """names of the module's tensors; of one with several names the first"""
        tensors = [tensor for kind in kinds for _, tensor in kind(remove_duplicate=False)]
        self._is_shared = len(set(tensors)) < len(tensors)  # tensors are equal where they are one
        self._is_plain = not self._is_shared and not any(map(may_write, module.modules()))
        self._tables = {name: _table(module, name) for name in self.names}

    def __call__(self, values: Params, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        if not self._is_plain:
            return functional_call(self.module, values, args, kwargs, tie_weights=self._is_shared)
        places = [self._tables[name] for name in values]
        before = [table[key] for table, key in places]
        try:
            for (table, key), value in zip(places, values.values(), strict=True):
                table[key] = value
            return self.module(*args, **(kwargs or {}))
        finally:
            for (table, key), value in zip(places, before, strict=True):
                table[key] = value


def _table(module: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """The dictionary that holds the tensor `name` of the module, and its key there."""
    prefix, _, key = name.rpartition(".")
    owner = module.get_submodule(prefix)
    return owner._parameters if key in owner._parameters else owner._buffers, key
