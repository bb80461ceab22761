"""The outer optimisers' update rules on one vector, bit for bit those of `torch.optim` with its defaults.

Their classes there spend several times the arithmetic of a small model on hooks, groups and dispatch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

State = dict[str, Tensor]
"""What a rule keeps between steps, under torch's names; empty before the first."""

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


def sgd(param: Tensor, gradient: Tensor, state: State, *, lr: float, weight_decay: float, momentum: float) -> None:
    """θ ← θ − lr · m with m ← momentum · m + g, where g includes the decay."""
    if weight_decay:
        gradient = gradient.add(param, alpha=weight_decay)
    if momentum and not state:
        state["momentum_buffer"] = gradient.clone()
    elif momentum:
        state["momentum_buffer"].mul_(momentum).add_(gradient)
    param.add_(state.get("momentum_buffer", gradient), alpha=-lr)


def adam(param: Tensor, gradient: Tensor, state: State, *, lr: float, weight_decay: float) -> None:
    """Kingma and Ba, ICLR 2015, with betas 0.9 and 0.999; the decay is part of the gradient."""
    if weight_decay:
        gradient = gradient.add(param, alpha=weight_decay)
    if not state:
        state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}
    state["step"] += 1
    count = state["step"].item()
    state["exp_avg"].lerp_(gradient, 1 - _BETA1)
    state["exp_avg_sq"].mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
    scale = state["exp_avg_sq"].sqrt().div_(math.sqrt(1 - _BETA2**count)).add_(_EPS)
    param.addcdiv_(state["exp_avg"], scale, value=-(lr / (1 - _BETA1**count)))


def adamw(param: Tensor, gradient: Tensor, state: State, *, lr: float, weight_decay: float) -> None:
    """Adam with decoupled decay (Loshchilov and Hutter, ICLR 2019)."""
    param.mul_(1 - lr * weight_decay)
    adam(param, gradient, state, lr=lr, weight_decay=0.0)
