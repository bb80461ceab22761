"""Outer optimisers of `torch.optim`, or of one's own with its interface, on the parameters as they are shaped."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raymeta.errors import ConfigError
from raymeta.system.their_code import imported
from raymeta.tree import Layout

NUMBER = "#"
"""What the name of a state ends with that is a number of Python and no tensor."""


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class that `outer.optimizer` names in `torch.optim`, or by an import path.

    Raises `ConfigError` where there is none, and for one that has to evaluate the loss again.
    """
    cls: Any = imported(name, "outer.rule") if ":" in name else getattr(torch.optim, name)
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise ConfigError(f"outer.rule {name} is no subclass of torch.optim.Optimizer")
    closure = inspect.signature(cls.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(f"{name} evaluates the loss several times in a step, which an outer step cannot")
    return cls


class TorchRule:
    """An optimiser of torch on some parameters, whose state goes to checkpoints by name."""

    def __init__(
        self, name: str, layout: Layout, vector: Tensor, gradient: Tensor, arguments: Mapping[str, Any]
    ) -> None:
        self._params = layout.unflatten(vector)
        for param, slope in zip(self._params.values(), layout.unflatten(gradient).values(), strict=True):
            param.grad = slope
        try:
            self._optimizer = optimizer_class(name)(list(self._params.values()), **arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"outer.optimizer {name} cannot be made of {dict(arguments)}: {error}") from error

    def step(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        with torch.no_grad():
            self._optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """State by `PARAMETER|KEY`."""
        found = {}
        for name, param in self._params.items():
            for key, value in self._optimizer.state.get(param, {}).items():
                if isinstance(value, Tensor):
                    found[f"{name}|{key}"] = value.detach().clone()
                elif isinstance(value, int | float):
                    found[f"{name}|{key}{NUMBER}"] = torch.tensor(float(value), dtype=torch.float64)
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """What `tensors` gave; without any, the state before the first step."""
        self._optimizer.state.clear()
        for full, value in tensors.items():
            name, _, key = full.rpartition("|")
            if name in self._params:
                state = self._optimizer.state[self._params[name]]
                state[key.removesuffix(NUMBER)] = _number(value) if key.endswith(NUMBER) else value.clone()


def _number(value: Tensor) -> int | float:
    number = float(value)
    return int(number) if number.is_integer() else number
