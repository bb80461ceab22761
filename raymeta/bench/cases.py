"""What is measured: methods on networks with tasks of a size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raymeta.algorithms.anil import ANIL
from raymeta.algorithms.base import Algorithm
from raymeta.algorithms.maml import MAML
from raymeta.algorithms.protonet import ProtoNet
from raymeta.algorithms.reptile import Reptile
from raymeta.bench.case import Case
from raymeta.bench.of_presets import PRESETS, case_of
from raymeta.models.conv4 import Conv4
from raymeta.models.mlp import MLP
from raymeta.tasks import Glyphs, Sinusoid, TabularPrior
from raymeta.tasks.base import TaskSet

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


def _episodes(name: str, tasks: TaskSet, num_tasks: int) -> Case:
    sizes: dict[str, Any] = {"way": 1, "shot": 1, "query_shot": 1, "input_shape": (1,)}
    return Case(
        name=name, algorithm=MAML(), model=MLP(), num_tasks=num_tasks, work="episodes", drawn_from=tasks, **sizes
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
        *map(case_of, PRESETS),
        replace(_images("maml-evaluation", MAML(inner_lr=0.4), _STRIDED, 1, 15, 8), work="evaluation"),
        replace(_images("protonet-evaluation", ProtoNet(), _POOLED, 1, 15, 8), work="evaluation"),
        _episodes("glyphs-episodes", Glyphs(query_shot=15), 32),
        _episodes("sinusoid-episodes", Sinusoid(), 25),
        _episodes("tabular-episodes", TabularPrior(), 16),
    )
}
"""Every case by name."""
