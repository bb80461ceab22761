"""What a model specification is: hyper-parameters that build an `nn.Module` for given shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class ModelSpec(ABC):
    """Hyper-parameters of an architecture; `build` makes the module, with torch's global generator.

    The last layer that turns features into outputs is the submodule named `head`; algorithms that adapt only the
    head, or replace it, rely on nothing following it.
    """

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], num_outputs: int | None) -> nn.Module:
        """A module mapping [n, *input_shape] to [n, num_outputs], or to features [n, d] where that is None.

        Raises `ConfigError` where the architecture cannot take that input.
        """
