"""The outer optimisers' update rules on one vector, bit for bit those of `torch.optim`, Adam's with `fused=True`.

Their classes there spend several times the arithmetic of a small model on hooks, groups and dispatch.
"""

from __future__ import annotations

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


def adam(
    param: Tensor, gradient: Tensor, state: State, *, lr: float, weight_decay: float, decoupled: bool = False
) -> None:
    """Kingma and Ba, ICLR 2015, with betas 0.9 and 0.999, in one pass whose bits no number of threads changes.

    The decay is part of the gradient, or `decoupled` from it (AdamW: Loshchilov and Hutter, ICLR 2019).
    """
    if not state:
        state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}
    count = state["step"].numpy()  # the same memory: a tensor's own addition takes ten times as long
    count += 1
    pass_over = torch._fused_adamw_ if decoupled else torch._fused_adam_
    pass_over(
        [param],
        [gradient],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [state["step"]],
        lr=lr,
        beta1=_BETA1,
        beta2=_BETA2,
        weight_decay=weight_decay,
        eps=_EPS,
        amsgrad=False,
        maximize=False,
    )
