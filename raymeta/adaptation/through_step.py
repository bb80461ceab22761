"""Through one step: what a training loss reads besides the parameters, judged by another loss after a step along it.

Let f(w, h) be the training loss of parameters w, which also reads h. With w'(h) = w − λ ∇_w f(w, h), the derivative of
another loss at w'(h) in h is −∇_h ⟨∇_w f(w, h), λ g⟩ for the gradient g of that loss at w', held fixed. Where f is a
mean over tasks, so are all three maps that it takes: ∇_w f, g, and the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.tree import Params


def stepped(params: Params, gradient: Params, rates: Mapping[str, float]) -> Params:
    """w' = w − λ G of the parameters that have a gradient."""
    return {name: params[name] - rates[name] * value for name, value in gradient.items()}


def along(rates: Mapping[str, float], gradient: Params) -> Params:
    """λ g, the direction that the last map is given."""
    return {name: rates[name] * value for name, value in gradient.items()}


def inner_product(one: Params, other: Params) -> Tensor:
    """⟨one, other⟩ over the names of `one`."""
    return torch.stack([(value * other[name]).sum() for name, value in one.items()]).sum()


def slopes(loss: Callable[[Params, Params], Tensor], own: Params, others: Params, direction: Params) -> Params:
    """∇_h ⟨∇_w f(w, h), d⟩ for w = `own` and h = `others`, reverse over reverse."""

    def slope(others: Params) -> Tensor:
        gradient, _ = gradient_and_value(lambda own: loss(own, others), own)
        return inner_product(gradient, direction)

    return gradient_and_value(slope, others)[0]
