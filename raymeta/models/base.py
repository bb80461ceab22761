"""What a model specification is: hyper-parameters that build an `nn.Module` for given shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import nn

from raymeta.errors import ConfigError
from raymeta.tasks.base import TaskSet
from raymeta.tasks.inputs import Shape


class ModelSpec(ABC):
    """Hyper-parameters of an architecture; `build` makes the module, with torch's global generator.

    The last layer that turns features into outputs is the submodule named `head`; algorithms that adapt only the
    head, or replace it, rely on nothing following it.
    """

    def fitted(self, tasks: TaskSet) -> Self:
        """This with what only the data tell beside shapes, such as the size of a vocabulary."""
        return self

    def resized(self, width: int | None, depth: int | None) -> Self:
        """This with other channels in each block, or units in each hidden layer, and other numbers of these.

        None leaves either as it is. Raises `ConfigError` where the architecture has no such sizes.
        """
        if width is None and depth is None:
            return self
        raise ConfigError(
            f"model {type(self).__name__} has no width and depth that a method could choose: leave them out, or use "
            "--model conv4 or mlp"
        )

    @abstractmethod
    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        """A module mapping [n, *input_shape] to [n, num_outputs], or to features [n, d] where that is None.

        Several inputs, whose shapes come by name, are keyword arguments of its forward.

        Raises `ConfigError` where the architecture cannot take that input.
        """
