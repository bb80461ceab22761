"""The outer optimiser: the one object of a run that mutates."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.problem import Learned
from raymeta.algorithms.meta_sgd import RATES
from raymeta.engine.driver.update_rules import State, adam, sgd
from raymeta.options import STRICT
from raymeta.tree import Layout, Params, detach


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OuterOptions:
    """How the mean meta-gradient becomes an outer step."""

    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    """outer optimiser"""
    lr: PositiveFloat = 1e-3
    """outer learning rate at the first step"""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """momentum of `sgd`"""
    weight_decay: NonNegativeFloat = 0.0
    """weight decay (decoupled for `adamw`); learned inner rates are never decayed"""
    schedule: Literal["constant", "linear", "cosine", "step"] = "constant"
    """how the rate moves from `lr`: towards `final_lr`, or by `step_factor` every `step_every` steps"""
    final_lr: NonNegativeFloat = 0.0
    """where `linear` and `cosine` lead: the last step is one short of it, as the first is at `lr`"""
    step_every: PositiveInt = 2000
    """outer steps between the drops of `step`"""
    step_factor: PositiveFloat = 0.5
    """factor of each drop of `step`"""
    clip_norm: PositiveFloat | None = None
    """largest global norm of the mean meta-gradient; larger ones are scaled down"""
    clip_value: PositiveFloat | None = None
    """largest magnitude of an element of the mean meta-gradient (MAML's code: 10 on mini-ImageNet)"""

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of outer step `step` (from 0) of `steps`: a pure function, so resume needs no state."""
        progress = step / steps
        match self.schedule:
            case "linear":
                return self.lr + (self.final_lr - self.lr) * progress
            case "cosine":
                return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * progress)) / 2
            case "step":
                return self.lr * self.step_factor ** (step // self.step_every)
            case "constant":
                return self.lr


class OuterOptimizer:
    """Owns the learned parameters and applies one mean meta-gradient per outer step.

    The tensors live on the CPU, where the driver folds; workers get copies. They are views of one flat vector in the
    order of `learned.params`, so that a step costs the same however many they are.
    """

    def __init__(self, learned: Learned, options: OuterOptions) -> None:
        self.options = options
        self.state = dict(learned.state)
        self._layout = Layout.of(learned.params)
        self._flat = self._layout.flatten(detach(learned.params)).clone()
        self._gradient = torch.empty_like(self._flat)
        # The same memory, for numpy.
        self._flat_array, self._gradient_array = self._flat.numpy(), self._gradient.numpy()
        self.params = self._layout.unflatten(self._flat)
        self._pieces = self._cut()

    @property
    def learned(self) -> Learned:
        """What is learned now; the tensors are the live ones and must not be written."""
        return Learned(dict(self.params), self.state)

    def payload(self, state_layout: Layout) -> NDArray[np.floating]:
        """A copy of everything learned as one flat vector [P + S], what `Blueprint.payload` makes of `learned`."""
        if not self.state:
            return self._flat_array.copy()
        return torch.cat([self._flat, state_layout.flatten(self.state).to(self._flat.dtype)]).numpy()

    def step(self, gradient: NDArray[np.float64], *, lr: float) -> float:
        """Apply the mean meta-gradient [P], in the order of the parameters, with rate `lr`.

        Returns its norm before clipping.
        """
        # Summed by numpy: torch's sums change with the number of threads, which is not the driver's to choose.
        norm = math.sqrt(np.add.reduce(np.square(gradient)))
        if self.options.clip_norm is not None and norm > self.options.clip_norm:
            gradient = gradient * (self.options.clip_norm / norm)
        if self.options.clip_value is not None:
            gradient = gradient.clip(-self.options.clip_value, self.options.clip_value)
        self._gradient_array[:] = gradient
        for piece in self._pieces:
            decay = self.options.weight_decay if piece.decays else 0.0
            match self.options.optimizer:
                case "sgd":
                    momentum = self.options.momentum
                    sgd(piece.vector, piece.gradient, piece.state, lr=lr, weight_decay=decay, momentum=momentum)
                case kind:
                    decoupled = kind == "adamw"
                    adam(piece.vector, piece.gradient, piece.state, lr=lr, weight_decay=decay, decoupled=decoupled)
        return norm

    def state_tensors(self) -> dict[str, Tensor]:
        """The optimiser's own state as named tensors, for a checkpoint: `PARAMETER|KEY`."""
        return {
            f"{name}|{key}": part.clone()
            for piece in self._pieces
            for key, value in piece.state.items()
            for name, part in piece.by_name(key, value).items()
        }

    def load(self, learned: Learned, tensors: dict[str, Tensor]) -> None:
        """Restore learned parameters and what `state_tensors` gave."""
        self._flat.copy_(self._layout.flatten(learned.params))
        self.state = {name: learned.state[name].clone() for name in self.state}
        for piece in self._pieces:
            first = next(iter(piece.layout.shapes))
            named = [full.rpartition("|") for full in tensors]
            for key in [key for name, _, key in named if name == first]:
                values = {name: tensors[f"{name}|{key}"] for name in piece.layout.shapes}
                piece.state[key] = piece.joined(key, values)

    def _cut(self) -> list[_Piece]:
        """The flat vector where decaying parameters and learned inner rates take turns."""
        pieces, start = [], 0
        for are_rates, names in groupby(self._layout.shapes, key=lambda name: name.startswith(RATES)):
            layout = Layout({name: self._layout.shapes[name] for name in names})
            part = slice(start, start + layout.size)
            pieces.append(_Piece(self._flat[part], self._gradient[part], layout, decays=not are_rates, state={}))
            start += layout.size
        return pieces


class _Piece(NamedTuple):
    """Neighbouring parameters that are updated as one vector."""

    vector: Tensor
    gradient: Tensor
    layout: Layout
    decays: bool
    state: State

    def by_name(self, key: str, value: Tensor) -> Params:
        """State `key` of the vector as that of each parameter."""
        return dict.fromkeys(self.layout.shapes, value) if key == _COUNT else self.layout.unflatten(value)

    def joined(self, key: str, values: Params) -> Tensor:
        """Inverse of `by_name`, in memory of its own."""
        return (values[next(iter(self.layout.shapes))] if key == _COUNT else self.layout.flatten(values)).clone()


_COUNT = "step"
"""Adam's number of steps, a scalar that is the same for all parameters."""
