"""A person's own model, by import path."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.layers.convert import convert
from raymeta.models.shapes import require_outputs
from raymeta.options import IMPORTED, STRICT
from raymeta.system.text import did_you_mean, nearest
from raymeta.system.their_code import imported, told
from raymeta.tasks.inputs import Shape


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Custom(ModelSpec):
    """What `path` returns when called with input_shape, num_outputs (those that it accepts) and `options`.

    Its fused norms are replaced by exact ones of the same names and values. Algorithms that need a head take the linear
    layer that it calls last, unless `head` names another. What it draws with torch, numpy or Python's random while it
    is built follows from the run's seed.
    """

    path: Annotated[str, IMPORTED]
    """`package.module:function` (or a class), importable where training runs; it returns an nn.Module"""
    options: dict[str, Any] = Field(default_factory=dict)
    """further keyword arguments"""
    head: str | None = None
    """name of the layer that ANIL and others adapt or replace; the linear layer that is called last unless given"""

    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        function = _find(self.path)
        arguments = _arguments(self.path, function, input_shape, num_outputs, self.options)
        with told(f"model.path: {self.path} could not build the model"):
            model = function(**arguments)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"model.path: {self.path} returned {type(model).__name__}, not a torch.nn.Module")
        exact = convert(model)
        with told(f"model.path: {self.path} could not be called"):
            require_outputs(f"model {self.path}", exact, input_shape, num_outputs)
        return exact


def _find(path: str) -> Callable[..., object]:
    function: object = imported(path, "model.path")
    if not callable(function):
        raise ConfigError(f"model.path: {path} is a {type(function).__name__}, not a function")
    return function


def _arguments(
    path: str,
    function: Callable[..., object],
    input_shape: Shape,
    num_outputs: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = {"input_shape": input_shape, "num_outputs": num_outputs}
    arguments = {name: value for name, value in given.items() if takes_any or name in parameters} | options
    for name in arguments:
        if not takes_any and name not in parameters:
            raise ConfigError(
                f"model.options: {path} takes no {name}{did_you_mean(nearest(name, parameters), before='; ')}"
            )
    missing = [n for n, p in parameters.items() if n not in arguments and _required(p)]
    if missing:
        raise ConfigError(f"model.options: {path} also needs {', '.join(missing)}")
    return arguments


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_KEYWORD,
        parameter.VAR_POSITIONAL,
    )
