"""What every peer gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.adaptation.problem import Problem
from raymeta.bench.case import Case
from raymeta.bench.ours import start
from raymeta.bench.plain import plain
from raymeta.tasks.inputs import only
from raymeta.tree import Params

Gradient = Callable[[], Params]
Tasks = list[tuple[Tensor, Tensor, Tensor, Tensor]]


class Setting:
    """A plain network on the device, what is learned beside it, the loss, and the tasks one by one."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.net = case, plain(case.module()).to(device)
        problem = Problem(case.module(), goal=case.goal)
        others = {n: p for n, p in start(case, problem).params.items() if n not in problem.param_names}
        self.beside = {name: nn.Parameter(value.detach().clone().to(device)) for name, value in others.items()}
        self.loss: Any = F.cross_entropy if case.goal == "classification" else F.mse_loss
        sides = [value.to(device) for side in case.episodes() for value in (only(side.x), side.y)]
        self.tasks: Tasks = list(zip(*(side.unbind(0) for side in sides), strict=True))
        self.steps, self.first_order = case.inner_steps, case.first_order
        self.lr = float(getattr(case.algorithm, "inner_lr", 0.0))

    @property
    def params(self) -> dict[str, nn.Parameter]:
        return dict(self.net.named_parameters()) | self.beside

    def zero_grad(self) -> None:
        for parameter in self.params.values():
            parameter.grad = None

    def collected(self) -> Params:
        """The accumulated gradients."""
        return {name: p.grad.detach().clone() for name, p in self.params.items() if p.grad is not None}
