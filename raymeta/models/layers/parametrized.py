"""Modules with torch's parametrizations, sent to other processes.

`register_parametrization` gives a module a class of its own, made on the spot, which refuses to be pickled. What it
consists of can be pickled: the class before, the attributes, and the names of the parametrized tensors.
"""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.utils import parametrize


def make_picklable(model: nn.Module) -> None:
    """Let every parametrized module of `model` be pickled."""
    for module in model.modules():
        if parametrize.is_parametrized(module):
            copyreg.pickle(type(module), _taken_apart)


def _taken_apart(module: nn.Module) -> tuple[Any, ...]:
    plain = type(module).__mro__[1]
    names = tuple(module.parametrizations)  # type: ignore[arg-type]
    return _put_together, (plain, vars(module).copy(), names)


def _put_together(plain: type[nn.Module], attributes: dict[str, Any], names: Sequence[str]) -> nn.Module:
    module = plain.__new__(plain)
    vars(module).update(attributes)
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
    copyreg.pickle(type(module), _taken_apart)
    return module
