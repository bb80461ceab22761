"""The outer optimiser: the one object of a run that mutates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.problem import Learned
from raymeta.algorithms.base import Algorithm
from raymeta.engine.driver.torch_rules import TorchRule
from raymeta.engine.driver.update_rules import State, adam, sgd
from raymeta.engine.fold import Total
from raymeta.engine.job import Payload
from raymeta.options import IMPORTED, STRICT
from raymeta.tree import Layout, Params, detach

_OWN = ("sgd", "adam", "adamw")
"""Rules of our own, which take a fraction of the time of torch's classes."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OuterOptions:
    """How the mean meta-gradient becomes an outer step."""

    optimizer: Literal[
        "sgd", "adam", "adamw", "Adadelta", "Adafactor", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam",
        "RMSprop", "Rprop",
    ] = "adam"  # fmt: skip
    """outer optimiser: `sgd`, `adam` and `adamw` of our own, the others are the classes of `torch.optim`"""
    rule: Annotated[str | None, IMPORTED] = None
    """import path of an optimiser class with the interface of `torch.optim`, in place of `optimizer`"""
    arguments: dict[str, bool | int | float | str | list[float]] = Field(default_factory=dict)
    """further arguments of a class of `torch.optim` or of `rule`"""
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

    @model_validator(mode="after")
    def _arguments_are_of_a_class(self) -> Self:
        if self.optimizer in _OWN and self.rule is None and self.arguments:
            raise ValueError(
                f"arguments are those of a class of torch.optim, and {self.optimizer} takes momentum and weight_decay "
                "alone: choose another optimizer, or a rule"
            )
        return self

    def of_torch(self) -> dict[str, Any]:
        """Arguments of a class of torch."""
        decay = {"weight_decay": self.weight_decay} if self.weight_decay else {}
        return {"lr": self.lr, **decay, **({"momentum": self.momentum} if self.momentum else {}), **self.arguments}

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


class Moment(NamedTuple):
    """What a step needs to know of the run besides what is learned."""

    step: int = 0
    steps: int = 1
    state_layout: Layout = Layout({})
    momenta: Mapping[str, float | None] = {}  # of running statistics; None for a mean over all steps


class OuterOptimizer:
    """Owns everything that an outer step may change: parameters, state, the optimiser's own state, and `memory`.

    The tensors live on the CPU, where the driver folds; workers get copies. Parameters are views of one flat vector in
    the order of `learned.params`, so that a step costs the same however many they are. `outer_of` says which settings
    differ for a parameter. With `apart` each parameter is stepped by itself, so that bits do not depend on which ones
    a method updates together.
    """

    def __init__(
        self,
        learned: Learned,
        options: OuterOptions,
        outer_of: Callable[[str], Mapping[str, Any]] = lambda name: {},
        *,
        apart: bool = False,
    ) -> None:
        self.options = options
        self.state = dict(learned.state)
        self.memory: Params = {}
        self._moment = Moment()
        self._layout = Layout.of(learned.params)
        self._flat = self._layout.flatten(detach(learned.params)).clone()
        self._gradient = torch.empty_like(self._flat)
        # The same memory, for numpy.
        self._flat_array, self._gradient_array = self._flat.numpy(), self._gradient.numpy()
        self.params = self._layout.unflatten(self._flat)
        self._pieces = list(self._cut(outer_of, apart))

    @property
    def learned(self) -> Learned:
        """What is learned now; the tensors are the live ones and must not be written."""
        return Learned(dict(self.params), self.state)

    def payload(self, state_layout: Layout) -> Payload:
        """A copy of everything learned as one flat vector [P + S], what `Blueprint.payload` makes of `learned`."""
        if not self.state:
            return Payload(self._flat_array.copy())
        return Payload(torch.cat([self._flat, state_layout.flatten(self.state).to(self._flat.dtype)]).numpy())

    def begin(self, moment: Moment) -> None:
        """Whatever follows is of the outer step of `moment`."""
        self._moment = moment

    def descend(self, total: Total, algorithm: Algorithm) -> float:
        """One step with the mean of everything learned, divided once by the number of tasks; returns the gradient's
        norm before clipping."""
        mean = total.vector / total.num_tasks
        norm = self.step(mean[: self._layout.size], lr=None)
        if self.state:
            step, _, layout, known = self._moment
            means: Params = layout.unflatten(torch.from_numpy(mean[self._layout.size :]))
            momenta = {name: 1 / (step + 1) if m is None else m for name, m in known.items()}
            self.state = algorithm.fold_state(self.state, means, momenta)
        return norm

    def step(self, gradient: NDArray[np.float64], *, lr: float | None) -> float:
        """Apply the mean meta-gradient [P], in the order of the parameters, with rate `lr`, or that of the moment.

        Returns its norm before clipping.
        """
        gradient, norm = self._clipped(gradient)
        self._gradient_array[:] = gradient
        for piece in self._pieces:
            piece.step(piece.options.lr_at(*self._moment[:2]) if lr is None else lr)
        return norm

    def update(self, gradients: Mapping[str, Tensor]) -> float:
        """One step of the parameters that are named, each with its own settings; returns the norm of their gradient."""
        unknown = sorted(set(gradients) - set(self.params))
        if unknown or not gradients:
            raise ValueError(f"there is no learned parameter {unknown[0]}" if unknown else "no gradients are given")
        names = [name for name in self.params if name in gradients]
        pieces = [piece for piece in self._pieces if not piece.layout.shapes.keys().isdisjoint(names)]
        if left := {name for piece in pieces for name in piece.layout.shapes} - set(names):
            raise ValueError(f"{sorted(left)[0]} is stepped together with {names[0]}, but has no gradient")
        wide = [gradients[name].detach().double().reshape(-1).numpy() for name in names]
        vector, norm = self._clipped(np.concatenate(wide))
        start = 0
        for name in names:
            place = self._places[name]
            self._gradient_array[place] = vector[start : start + place.stop - place.start]
            start += place.stop - place.start
        for piece in pieces:
            piece.step(piece.options.lr_at(*self._moment[:2]))
        return norm

    def preview(self, gradients: Mapping[str, Tensor]) -> Params:
        """All parameters as they would be after `update`, which is not done."""
        before = self.snapshot()
        self.update(gradients)
        after = {name: value.clone() for name, value in self.params.items()}
        self.restore(before)
        return after

    def assign(self, values: Mapping[str, Tensor]) -> None:
        """Set the parameters that are named."""
        for name, value in values.items():
            self.params[name].copy_(value)

    def lr(self, name: str) -> float:
        """The learning rate of a parameter in this step."""
        (piece,) = (piece for piece in self._pieces if name in piece.layout.shapes)
        return piece.options.lr_at(*self._moment[:2])

    @property
    def rate(self) -> float:
        """The learning rate of this step, where no parameter has another."""
        return self.options.lr_at(*self._moment[:2])

    def state_tensors(self) -> dict[str, Tensor]:
        """The optimiser's own state as named tensors, for a checkpoint: `PARAMETER|KEY`, and memory as `|NAME`."""
        own = {name: value for piece in self._pieces for name, value in piece.tensors().items()}
        return own | {_MEMORY + name: value.detach().clone() for name, value in self.memory.items()}

    def load(self, learned: Learned, tensors: Mapping[str, Tensor]) -> None:
        """Restore learned parameters and what `state_tensors` gave."""
        self._flat.copy_(self._layout.flatten(learned.params))
        self.state = {name: learned.state[name].clone() for name in self.state}
        remembered = {name for name in tensors if name.startswith(_MEMORY)}
        self.memory = {name.removeprefix(_MEMORY): tensors[name].clone() for name in remembered}
        own = {name: value for name, value in tensors.items() if name not in remembered}
        for piece in self._pieces:
            piece.load(own)

    def snapshot(self) -> tuple[Learned, dict[str, Tensor]]:
        """Everything as it is, for `restore`."""
        params, state = ({n: v.clone() for n, v in part.items()} for part in (self.params, self.state))
        return Learned(params, state), self.state_tensors()

    def restore(self, before: tuple[Learned, dict[str, Tensor]]) -> None:
        self.load(*before)

    @cached_property
    def _places(self) -> dict[str, slice]:
        """Where each parameter lies in the flat vector."""
        ends = itertools.accumulate(self._layout.sizes)
        sizes = zip(self._layout.shapes, self._layout.sizes, ends, strict=True)
        return {name: slice(end - size, end) for name, size, end in sizes}

    def _clipped(self, gradient: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """A gradient as its options bound it, and its norm before."""
        # Summed by numpy: torch's sums change with the number of threads, which is not the driver's to choose.
        norm = math.sqrt(np.add.reduce(np.square(gradient)))
        if self.options.clip_norm is not None and norm > self.options.clip_norm:
            gradient = gradient * (self.options.clip_norm / norm)
        if self.options.clip_value is not None:
            gradient = gradient.clip(-self.options.clip_value, self.options.clip_value)
        return gradient, norm

    def _cut(self, outer_of: Callable[[str], Mapping[str, Any]], apart: bool) -> Iterator[_Piece]:
        """The flat vector where parameters of other settings take turns."""
        own = {name: _settings(outer_of(name)) for name in self._layout.shapes}
        groups = groupby(own, key=lambda name: (name if apart else "", sorted(own[name].items())))
        start = 0
        for (_, settings), names in groups:
            layout = Layout({name: self._layout.shapes[name] for name in names})
            part = slice(start, start + layout.size)
            options = replace(self.options, **dict(settings)) if settings else self.options
            yield _Piece(self._flat[part], self._gradient[part], layout, options)
            start += layout.size


def _settings(own: Mapping[str, Any]) -> dict[str, Any]:
    """Of a parameter: an optimiser of its own has not the rule and arguments of the others."""
    return ({"rule": None, "arguments": {}} if "optimizer" in own else {}) | dict(own)


class _Piece:
    """Neighbouring parameters that are updated as one vector, or by a class of torch as they are shaped."""

    def __init__(self, vector: Tensor, gradient: Tensor, layout: Layout, options: OuterOptions) -> None:
        self.vector, self.gradient, self.layout, self.options = vector, gradient, layout, options
        self.state: State = {}
        self.rule: TorchRule | None = None
        if options.rule is not None or options.optimizer not in _OWN:
            self.rule = TorchRule(options.rule or options.optimizer, layout, vector, gradient, options.of_torch())

    def step(self, lr: float) -> None:
        """One step of the rule with the gradient that is there."""
        options, decay = self.options, self.options.weight_decay
        if self.rule is not None:
            self.rule.step(lr)
            return
        match options.optimizer:
            case "sgd":
                momentum = options.momentum
                sgd(self.vector, self.gradient, self.state, lr=lr, weight_decay=decay, momentum=momentum)
            case kind:
                adam(self.vector, self.gradient, self.state, lr=lr, weight_decay=decay, decoupled=kind == "adamw")

    def tensors(self) -> dict[str, Tensor]:
        """State by `PARAMETER|KEY`."""
        if self.rule is not None:
            return self.rule.tensors()
        named = ((key, self.by_name(key, value)) for key, value in self.state.items())
        return {f"{name}|{key}": part.clone() for key, parts in named for name, part in parts.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """What `tensors` gave; without any, the state before the first step."""
        if self.rule is not None:
            self.rule.load(tensors)
            return
        self.state.clear()
        first = next(iter(self.layout.shapes))
        named = (full.rpartition("|") for full in tensors)
        for key in [key for name, _, key in named if name == first]:
            self.state[key] = self.joined(key, {name: tensors[f"{name}|{key}"] for name in self.layout.shapes})

    def by_name(self, key: str, value: Tensor) -> Params:
        """State `key` of the vector as that of each parameter."""
        return dict.fromkeys(self.layout.shapes, value) if key == _COUNT else self.layout.unflatten(value)

    def joined(self, key: str, values: Params) -> Tensor:
        """Inverse of `by_name`, in memory of its own."""
        return (values[next(iter(self.layout.shapes))] if key == _COUNT else self.layout.flatten(values)).clone()


_COUNT = "step"
"""Adam's number of steps, a scalar that is the same for all parameters."""
_MEMORY = "|"
"""What the names of memory begin with beside those of the optimiser's state."""
