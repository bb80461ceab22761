"""Methods that answer in one pass of the network, as they are written on plain torch, such as in easyfsl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from raymeta.algorithms.cnp import CNP
from raymeta.algorithms.matching import TINY, MatchingNet
from raymeta.algorithms.pfn import PFN
from raymeta.algorithms.protonet import ProtoNet
from raymeta.algorithms.r2d2 import LOG_RIDGE, LOG_SCALE, R2D2, SHIFT
from raymeta.bench.case import Case
from raymeta.bench.peer_setting import Gradient, Setting


def one_pass_autograd(case: Case, device: torch.device) -> Gradient:
    """One forward pass over support and queries of a task, and `backward`; task after task."""
    setting, logits = Setting(case, device), LOGITS[type(case.algorithm)]

    def gradient() -> dict[str, Tensor]:
        setting.zero_grad()
        for sx, sy, qx, qy in setting.tasks:
            support, query = setting.net(torch.cat([sx, qx])).split([len(sx), len(qx)])
            loss: Any = F.cross_entropy(logits(setting, support, sy, query), qy)
            loss.backward()
        return setting.collected()

    return gradient


def centres(setting: Setting, support: Tensor, sy: Tensor, query: Tensor) -> Tensor:
    """ProtoNet."""
    means = torch.stack([support[sy == c].mean(0) for c in range(setting.case.way)])
    logits: Tensor = -torch.cdist(query, means).square()
    return logits


def attention(setting: Setting, support: Tensor, sy: Tensor, query: Tensor) -> Tensor:
    """Matching networks, without context."""
    own: Any = setting.case.algorithm
    cosines = F.normalize(query, dim=1) @ F.normalize(support, dim=1).T
    labels = F.one_hot(sy, setting.case.way).to(query.dtype)
    logits: Tensor = ((own.scale * cosines).softmax(1) @ labels + TINY).log()
    return logits


def ridge(setting: Setting, support: Tensor, sy: Tensor, query: Tensor) -> Tensor:
    """R2-D2."""
    count, case = len(support), setting.case
    support, query = (F.pad(z, (0, 1), value=1.0) for z in (support, query))
    own = setting.beside
    z, y = support.double(), F.one_hot(sy, case.way).double() / count
    gram = z @ z.T / count + own[LOG_RIDGE].exp().double() * torch.eye(count, dtype=z.dtype, device=z.device)
    weights = (z.T @ torch.linalg.solve(gram, y)).to(query.dtype)
    logits: Tensor = own[LOG_SCALE].exp() * (query @ weights) + own[SHIFT]
    return logits


def deep_set(setting: Setting, support: Tensor, sy: Tensor, query: Tensor) -> Tensor:
    """Conditional neural processes."""
    net: Any = setting.net
    codes = net.encoder(support)
    means = torch.stack([codes[sy == c].mean(0) for c in range(setting.case.way)]).flatten()
    logits: Tensor = net.decoder(torch.cat([query, means.expand(len(query), -1)], 1))
    return logits


def in_context(setting: Setting, support: Tensor, sy: Tensor, query: Tensor) -> Tensor:
    """A prior-fitted network: its transformer, called for one task."""
    net, own = setting.net, setting.case.algorithm
    assert isinstance(own, PFN)
    reader: Any = net.get_submodule("reader")
    if own.standardize:
        deviation, mean = torch.std_mean(support, 0, correction=0)
        support, query = ((z - mean) / (deviation.square() + 1e-6).sqrt() for z in (support, query))
    logits: Tensor = reader(support, F.one_hot(sy, reader.labels).to(support.dtype), query)
    return logits


LOGITS: dict[type, Callable[[Setting, Tensor, Tensor, Tensor], Tensor]] = {
    ProtoNet: centres,
    MatchingNet: attention,
    R2D2: ridge,
    CNP: deep_set,
    PFN: in_context,
}
"""From features of the support, its labels, and features of queries to logits, by method."""
