"""Whether a model is its body followed by its head, which methods rely on that adapt or replace the head alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.autodiff.surroundings import put_back
from raymeta.errors import ConfigError
from raymeta.system.signals import raise_if_interrupt
from raymeta.tasks.inputs import Inputs
from raymeta.tree import Params

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest relative difference that rounding may make; 1e-1 in half precision."""


def require_head(problem: Problem, learned: Learned, x: Inputs) -> None:
    """Raise `ConfigError` unless `classify(features(x))` equals `forward(x)` for x [n, *feature], gradients too."""
    phase = Phase(training=True)

    def whole(params: Params) -> Tensor:
        return problem.forward(learned._replace(params=params), x, phase)

    def in_parts(params: Params) -> Tensor:
        return problem.classify(params, problem.features(learned._replace(params=params), x, phase))

    moment = problem.surroundings.now(learned.params)
    expected = _outputs_and_gradient(whole, learned.params)
    put_back(moment)
    try:
        found = _outputs_and_gradient(in_parts, learned.params)
    except Exception as error:  # whatever a body without its head makes of its inputs
        raise_if_interrupt(error)
        raise _not_a_head(problem, f"the rest of the model fails without it: {error}") from error
    finally:
        put_back(moment)
    tolerance = TOLERANCES.get(expected[_OUTPUTS].dtype, 1e-1)
    for name, value in expected.items():
        if found[name].shape != value.shape or _relative(found[name], value) > tolerance:
            what = "the outputs change" if name == _OUTPUTS else f"the gradient of {name} changes"
            raise _not_a_head(problem, f"{what} where the model is computed as a body and then this layer")


_OUTPUTS = "outputs|"


def _outputs_and_gradient(function: Callable[[Params], Tensor], params: Params) -> Params:
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    with torch.enable_grad():
        outputs = function(leaves)
        weights = torch.linspace(0.5, 1.5, outputs.numel(), dtype=outputs.dtype).view(outputs.shape)
        gradients = torch.autograd.grad((outputs * weights).sum(), list(leaves.values()), materialize_grads=True)
    return {_OUTPUTS: outputs.detach()} | dict(zip(leaves, gradients, strict=True))


def _relative(found: Tensor, expected: Tensor) -> float:
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return (
        float((found - expected).abs().max()) / scale if scale else float(found.abs().max()) if found.numel() else 0.0
    )


def _not_a_head(problem: Problem, reason: str) -> ConfigError:
    head = problem.head_name or "the model"
    return ConfigError(
        f"{head} cannot be adapted or replaced as the model's head: {reason}. Let the model end with its head, used "
        f"once and by itself, or name another layer with model.head, or use --algorithm maml with "
        f"--algorithm.adapt_only '[\"{problem.head_prefix}*\"]', which takes any model"
    )
