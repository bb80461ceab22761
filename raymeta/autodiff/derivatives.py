"""Derivatives with respect to named parameters, by torch.func under a transform and by plain autograd without one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch.autograd import forward_ad

from raymeta.autodiff.graphs import is_traced
from raymeta.tree import Params

_PLAIN: ContextVar[int] = ContextVar("plain derivatives", default=0)


def gradient_and_value(
    function: Callable[[Params], Any], params: Params, *, has_aux: bool = False
) -> tuple[Params, Any]:
    """(∇f(params), f(params)), or with `has_aux` (∇f, (f, aux)) of a function that returns (f, aux).

    Differentiable again where another derivative is being taken around it, whether or not that one's variables are
    among `params`, and where a person's `params` require gradients; under `torch.no_grad()` it is a constant. The same
    mathematics by two routes: inside `torch.vmap`, `torch.func.grad` or a compiler by torch.func; elsewhere by
    torch.autograd, which spends less time on each operation.
    """
    if is_traced() or _levels():
        result: tuple[Params, Any] = torch.func.grad_and_value(function, has_aux=has_aux)(params)
        return result
    recorded = torch.is_grad_enabled() and (_PLAIN.get() > 0 or any(value.requires_grad for value in params.values()))
    leaves = {n: p if recorded and p.requires_grad else p.detach().requires_grad_() for n, p in params.items()}
    token = _PLAIN.set(_PLAIN.get() + 1)
    try:
        with torch.enable_grad():
            outcome = function(leaves)
            value = outcome[0] if has_aux else outcome
            gradient = torch.autograd.grad(value, list(leaves.values()), create_graph=recorded, materialize_grads=True)
    finally:
        _PLAIN.reset(token)
    if not recorded:
        value = value.detach()
    named = dict(zip(leaves, gradient, strict=True))
    return named, (value, outcome[1]) if has_aux else value


RECOMPUTED = "activations of this model are computed again"
"""How the error begins that a model with `torch.utils.checkpoint` gets inside `whole_graphs`."""


def whole_graphs() -> AbstractContextManager[None]:
    """Inside, a model that would compute activations again while it is differentiated is refused.

    `torch.utils.checkpoint` runs a part of the forward again later, when the model no longer has the parameters of
    that inner step, so its derivatives would be wrong without a word.
    """
    return torch.autograd.graph.disable_saved_tensors_hooks(RECOMPUTED)


def plain() -> bool:
    """Whether operations run now as torch's autograd sees them: no transform of torch.func, no compiler."""
    return not is_traced() and not _levels()


def order() -> int:
    """How many derivatives are being taken around this call."""
    functorch = cast(Any, torch._C._functorch)
    kinds = (functorch.TransformType.Grad, functorch.TransformType.Jvp)
    return _PLAIN.get() + sum(level.key() in kinds for level in _levels())


def forward_mode() -> bool:
    """Whether a derivative is being taken forwards around this call (`torch.func.jvp`, dual numbers)."""
    functorch = cast(Any, torch._C._functorch)
    inside_of_duals: int = cast(Any, forward_ad)._current_level
    return inside_of_duals >= 0 or any(level.key() == functorch.TransformType.Jvp for level in _levels())


def _levels() -> list[Any]:
    return cast(Any, torch._C._functorch).get_interpreter_stack() or []
