"""A module that was handed over as an object, in place of options that build one."""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import nn

from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.fingerprint import fingerprint
from raymeta.models.layers.convert import convert
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.inputs import Shape

_HANDED_OVER: dict[tuple[str, str], nn.Module] = {}
"""Copies of the modules that were handed over in this process, the last one of each kind and layers."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Instance(ModelSpec):
    """The module of `meta_train(model=module)`, which starts from its own weights and is never changed.

    A run records what the module is made of and not the object: in another process it is handed over again, to
    `meta_train(resume=run, model=module)`, `meta_test(run, model=module)` or `load_run(run).model(module)`.
    """

    kind: str
    """class of the module"""
    layers_sha256: str
    """hash over its layers, their settings, plain attributes and modes, and the shapes of its tensors"""
    head: str | None = None
    """name of the layer that ANIL and others adapt or replace; the linear layer that is called last unless given"""

    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        module = _HANDED_OVER.get((self.kind, self.layers_sha256))
        if module is None:
            raise ConfigError(
                f"model: a {self.kind} was handed over as an object, which no file holds: hand it over again, as "
                "model=module of meta_train(resume=...) and meta_test, or load_run(...).model(module); a command needs "
                "--model custom --model.path package.module:function"
            )
        exact = convert(module)
        require_outputs(f"model {self.kind}", exact, input_shape, num_outputs)
        return exact


def hand_over(module: nn.Module, head: str | None = None) -> Instance:
    """What a run records of `module`; a copy is kept in this process. Raises `ConfigError`, see `convert`."""
    kind = f"{type(module).__module__}:{type(module).__qualname__}"
    spec = Instance(kind=kind, layers_sha256=fingerprint(module), head=head)
    _HANDED_OVER[spec.kind, spec.layers_sha256] = convert(module)
    return spec
