"""What becomes of an inner gradient before it is stepped along: clipping, momentum, Adam; all differentiable."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from raymeta.tree import Params, tree_map

InnerOptimizer = Literal["sgd", "adam"]
BETA1, BETA2, EPS, EPS_ROOT = 0.9, 0.999, 1e-8, 1e-8
SMALL = 1e-12
"""Added to a squared norm, whose root has no derivative at zero."""


class InnerRule(NamedTuple):
    """The rule of an inner loop. Its state starts at zero with every task and is differentiated through.

    `sgd`: d = g, or with `momentum` β the heavy ball v ← β v + g, d = v. `adam`: Kingma and Ba, 2015, whose root is
    √(v̂ + 1e-8) and not √v̂, for the derivative of that is infinite where a gradient is zero.
    """

    optimizer: InnerOptimizer = "sgd"
    momentum: float = 0.0
    clip_norm: float | None = None

    def state_names(self, adapted: tuple[str, ...]) -> list[str]:
        """Names of the state's tensors; no parameter's name holds a bar."""
        slots = ("first", "second") if self.optimizer == "adam" else ("velocity",) if self.momentum else ()
        return [f"{slot}|{name}" for slot in slots for name in adapted]

    def direction(self, gradient: Params, state: Params, step: int) -> tuple[Params, Params]:
        """The direction of inner step `step`, from 0, and the state after it; `state` is empty before the first."""
        if self.clip_norm is not None:
            gradient = _clipped(gradient, self.clip_norm)
        if self.optimizer == "adam":
            return _adam(gradient, state, step)
        if self.momentum:
            velocity = _moved(gradient, state, "velocity", self.momentum, 1.0)
            return velocity, _named("velocity", velocity)
        return gradient, {}


def _clipped(gradient: Params, largest: float) -> Params:
    norm = torch.stack([g.square().sum() for g in gradient.values()]).sum().add(SMALL).sqrt()
    factor = (largest / norm).clamp(max=1.0)
    return tree_map(lambda g: g * factor, gradient)


def _adam(gradient: Params, state: Params, step: int) -> tuple[Params, Params]:
    first = _moved(gradient, state, "first", BETA1, 1 - BETA1)
    second = _moved(tree_map(torch.square, gradient), state, "second", BETA2, 1 - BETA2)
    bias1, bias2 = 1 - BETA1 ** (step + 1), 1 - BETA2 ** (step + 1)
    direction = tree_map(lambda m, v: (m / bias1) / ((v / bias2 + EPS_ROOT).sqrt() + EPS), first, second)
    return direction, _named("first", first) | _named("second", second)


def _moved(values: Params, state: Params, slot: str, keep: float, add: float) -> Params:
    return {name: keep * state.get(f"{slot}|{name}", 0.0) + add * value for name, value in values.items()}


def _named(slot: str, values: Params) -> Params:
    return {f"{slot}|{name}": value for name, value in values.items()}
