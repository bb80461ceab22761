"""What no implementation can avoid: the plain passes of the network, and its arithmetic on this device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from raymeta.bench.cases import Case
from raymeta.bench.plain import plain
from raymeta.tasks.base import Examples

PEAK_SIZE = 1536


def floor(case: Case, device: torch.device) -> Callable[[], None]:
    """Forward and backward passes with one set of weights for all tasks, which batch best.

    An inner step costs one gradient on the support set, and at second order its derivative, which costs two more; the
    outer loss costs one gradient on the query set. A method without inner steps costs one on both.
    """
    net = plain(case.module()).to(device)
    episodes = case.episodes()
    support, query = _joined(episodes.support, device), _joined(episodes.query, device)
    passes = case.inner_steps * (1 if case.first_order else 3)

    def gradient(x: Tensor, y: Tensor) -> None:
        net.zero_grad()
        out: Any = net(x)
        if case.goal == "regression":
            loss: Any = F.mse_loss(out, y)
        else:
            loss = F.cross_entropy(out, y) if out.shape[1] == case.way else out.square().mean()
        loss.backward()

    def run() -> None:
        for _ in range(passes or 1):
            gradient(*support)
        gradient(*query)

    return run


def flops(case: Case) -> float:
    """Floating-point operations of `floor`."""
    run = floor(case, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def peak_flops(device: torch.device) -> float:
    """Operations a second of a large float32 matrix product, the best of several."""
    a = torch.rand(PEAK_SIZE, PEAK_SIZE, device=device)
    best = 0.0
    for _ in range(7):
        began = time.perf_counter()
        a @ a
        synchronize(device)
        best = max(best, 2 * PEAK_SIZE**3 / (time.perf_counter() - began))
    return best


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def _joined(side: Examples, device: torch.device) -> tuple[Tensor, Tensor]:
    return side.x.flatten(0, 1).to(device), side.y.flatten(0, 1).to(device)
