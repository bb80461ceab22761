"""What is measured: a method on a network with tasks of a size. The data are random; times do not depend on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raymeta.algorithms.anil import ANIL
from raymeta.algorithms.base import Algorithm
from raymeta.algorithms.maml import MAML
from raymeta.algorithms.protonet import ProtoNet
from raymeta.algorithms.reptile import Reptile
from raymeta.models.base import ModelSpec
from raymeta.models.conv4 import Conv4
from raymeta.models.mlp import MLP
from raymeta.tasks.base import Goal
from raymeta.tasks.episodes import Episode, Examples


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting. Regression has one output and `way` 1."""

    name: str
    algorithm: Algorithm
    model: ModelSpec
    input_shape: tuple[int, ...]
    way: int
    shot: int
    query_shot: int
    num_tasks: int
    goal: Goal = "classification"
    dtype: torch.dtype = torch.float32

    def module(self) -> nn.Module:
        """The network, always with the same parameters."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            outputs = None if isinstance(self.algorithm, ProtoNet) else self.way
            return self.model.build(self.input_shape, outputs).to(self.dtype)

    def episodes(self) -> Episode:
        """A batch of tasks, always the same."""
        generator = torch.Generator().manual_seed(0)

        def side(shot: int) -> Examples:
            n = self.way * shot
            x = torch.rand((self.num_tasks, n, *self.input_shape), generator=generator).to(self.dtype)
            if self.goal == "regression":
                return Examples(10 * x - 5, torch.rand((self.num_tasks, n, 1), generator=generator).to(self.dtype))
            y: Tensor = torch.arange(self.way).repeat_interleave(shot).expand(self.num_tasks, n).contiguous()
            return Examples(x, y)

        return Episode(side(self.shot), side(self.query_shot))

    @property
    def inner_steps(self) -> int:
        return int(getattr(self.algorithm, "inner_steps", 0))

    @property
    def first_order(self) -> bool:
        return isinstance(self.algorithm, Reptile) or bool(getattr(self.algorithm, "first_order", False))


_STRIDED, _POOLED = Conv4(), Conv4(downsample="pool", pooling="flatten")


def _images(name: str, algorithm: Algorithm, model: Conv4, shot: int, query_shot: int, num_tasks: int) -> Case:
    return Case(
        name=name,
        algorithm=algorithm,
        model=model,
        input_shape=(1, 28, 28),
        way=5,
        shot=shot,
        query_shot=query_shot,
        num_tasks=num_tasks,
    )


CASES = {
    case.name: case
    for case in (
        Case(
            name="sinusoid-maml",
            algorithm=MAML(inner_lr=0.01),
            model=MLP(),
            input_shape=(1,),
            way=1,
            shot=10,
            query_shot=10,
            num_tasks=25,
            goal="regression",
        ),
        _images("omniglot-maml", MAML(inner_lr=0.4), _STRIDED, 1, 1, 32),
        _images("omniglot-fomaml", MAML(inner_lr=0.4, first_order=True), _STRIDED, 1, 1, 32),
        _images("omniglot-anil", ANIL(inner_lr=0.4), _STRIDED, 1, 1, 32),
        _images(
            "omniglot-reptile",
            Reptile(inner_lr=0.01, inner_optimizer="sgd", inner_batch_size=25),
            _STRIDED,
            5,
            0,
            16,
        ),
        _images("omniglot-protonet", ProtoNet(), _POOLED, 1, 5, 8),
        _images("pooled-maml", MAML(inner_lr=0.01), _POOLED, 1, 15, 8),
        _images("omniglot-maml-5-steps", MAML(inner_lr=0.4, inner_steps=5), _STRIDED, 1, 1, 16),
    )
}
"""Every case by name."""
