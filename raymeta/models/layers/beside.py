"""Networks of a method's own beside the model: learned, sent, checkpointed and converted with it."""

from __future__ import annotations

from torch import Tensor, nn

BODY = "body."
"""What names of a model's parameters begin with where it stands beside others."""


class Beside(nn.Module):
    """A model `body` with further networks, which `Problem.beside` calls by their names.

    Its forward is that of the body, whose parameters are named `body.…`; those of a network `relation` are named
    `relation.…`.
    """

    def __init__(self, body: nn.Module, **others: nn.Module) -> None:
        super().__init__()
        self.body = body
        for name, module in others.items():
            self.add_module(name, module)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        outputs: Tensor = self.body(*args, **kwargs)
        return outputs
