"""What no implementation can avoid: the plain passes of the network, and its arithmetic on this device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from raymeta.algorithms.anil import ANIL
from raymeta.algorithms.imaml import IMAML
from raymeta.algorithms.meta_lstm import MetaLSTM
from raymeta.bench.case import Case
from raymeta.bench.plain import plain
from raymeta.tasks.episodes import Examples
from raymeta.tasks.inputs import only

PEAK_SIZE = 1536


def has_floor(case: Case) -> bool:
    """Whether the work cannot do without passes of the model: not where that learns nothing, as all lies beside it."""
    return case.work == "gradient" and any(p.requires_grad for p in case.body().parameters())


def passes(case: Case) -> int:
    """Gradients on the support set that a method cannot do without."""
    match case.algorithm:
        case ANIL():
            return 1
        case IMAML(cg_steps=cg_steps):
            return case.inner_steps + 2 * cg_steps
        case MetaLSTM():
            return case.inner_steps
        case _:
            return case.inner_steps * (1 if case.first_order else 3) or 1


def floor(case: Case, device: torch.device, *, at_once: bool = True) -> Callable[[], None]:
    """Forward and backward passes with one set of weights for all tasks, in one batch or task after task.

    An inner step costs one gradient on the support set, and at second order its derivative, which costs two more, as a
    step of conjugate gradients does; the outer loss costs one gradient on the query set. Where only the head adapts, or
    nothing, one gradient on both. What a method has beside the model is not counted.
    """
    net = plain(case.body()).to(device)
    episodes = case.episodes()
    support, query = (_batches(side, device, at_once) for side in episodes)
    count = passes(case)

    def gradient(x: Tensor, y: Tensor) -> None:
        net.zero_grad()
        out: Any = net(x)
        if case.goal == "regression":
            loss: Any = F.mse_loss(out, y)
        else:
            loss = F.cross_entropy(out, y) if out.shape[1] == case.way else out.square().mean()
        loss.backward()

    def run() -> None:
        for batch in support:
            for _ in range(count):
                gradient(*batch)
        for batch in query:
            gradient(*batch)

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


def _batches(side: Examples, device: torch.device, at_once: bool) -> list[tuple[Tensor, Tensor]]:
    if side.y.shape[1] == 0:
        return []
    x, y = only(side.x).to(device), side.y.to(device)
    return [(x.flatten(0, 1), y.flatten(0, 1))] if at_once else list(zip(x, y, strict=True))
