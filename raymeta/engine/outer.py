"""The outer optimiser: the one object of a run that mutates."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.algorithms.meta_sgd import RATES
from raymeta.algorithms.problem import Learned
from raymeta.options import STRICT
from raymeta.tree import Params, detach


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
    """how the rate moves from `lr`: to `final_lr` at the last step, or by `step_factor` every `step_every` steps"""
    final_lr: NonNegativeFloat = 0.0
    """rate at the last step of `linear` and `cosine`"""
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

    The tensors live on the CPU, where the driver folds; workers get copies.
    """

    def __init__(self, learned: Learned, options: OuterOptions) -> None:
        self.options = options
        self.state = dict(learned.state)
        self.params = {name: value.detach().clone().requires_grad_() for name, value in learned.params.items()}
        decayed = [p for name, p in self.params.items() if not name.startswith(RATES)]
        rates = [p for name, p in self.params.items() if name.startswith(RATES)]
        groups = [{"params": decayed, "weight_decay": options.weight_decay}]
        if rates:
            groups.append({"params": rates, "weight_decay": 0.0})
        self._optimizer: torch.optim.Optimizer
        match options.optimizer:
            case "sgd":
                self._optimizer = torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)
            case "adam":
                self._optimizer = torch.optim.Adam(groups, lr=options.lr)
            case "adamw":
                self._optimizer = torch.optim.AdamW(groups, lr=options.lr)

    @property
    def learned(self) -> Learned:
        """What is learned now; the tensors are the live ones and must not be written."""
        return Learned(detach(self.params), self.state)

    def step(self, gradient: Params, *, lr: float) -> float:
        """Apply the mean meta-gradient (float64, by name) with rate `lr`; returns its norm before clipping."""
        norm = float(torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt())
        scale = 1.0
        if self.options.clip_norm is not None and norm > self.options.clip_norm:
            scale = self.options.clip_norm / norm
        for name, param in self.params.items():
            value = gradient[name] * scale
            if self.options.clip_value is not None:
                value = value.clamp(-self.options.clip_value, self.options.clip_value)
            param.grad = value.to(param.dtype)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        return norm

    def state_tensors(self) -> dict[str, Tensor]:
        """The optimiser's own state as named tensors, for a checkpoint."""
        names = {id(p): name for name, p in self.params.items()}
        return {
            f"{names[id(param)]}|{key}": value.detach().clone()
            for param, values in self._optimizer.state.items()
            for key, value in values.items()
            if isinstance(value, Tensor)
        }

    def load(self, learned: Learned, tensors: dict[str, Tensor]) -> None:
        """Restore learned parameters and what `state_tensors` gave."""
        with torch.no_grad():
            for name, param in self.params.items():
                param.copy_(learned.params[name])
        self.state = {name: learned.state[name].clone() for name in self.state}
        for full, value in tensors.items():
            name, key = full.rsplit("|", 1)
            self._optimizer.state[self.params[name]][key] = value.clone()
