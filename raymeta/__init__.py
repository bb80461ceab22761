"""Meta-learning on Ray: exact meta-gradients, the same result on any number of workers, nothing lost.

Public names resolve on first use, so that `import raymeta` imports neither torch, nor ray, nor torchvision.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymeta.algorithms.anil import ANIL
    from raymeta.algorithms.base import Algorithm
    from raymeta.algorithms.baseline import Baseline
    from raymeta.algorithms.joint import JointTraining
    from raymeta.algorithms.maml import MAML
    from raymeta.algorithms.meta_sgd import MetaSGD
    from raymeta.algorithms.protonet import ProtoNet
    from raymeta.algorithms.reptile import Reptile
    from raymeta.api.evaluate import meta_test
    from raymeta.api.gradient import meta_gradient
    from raymeta.api.load import SweepView, load_run
    from raymeta.api.train import meta_train
    from raymeta.errors import RaymetaError
    from raymeta.keys import TaskKey
    from raymeta.models.base import ModelSpec
    from raymeta.tasks.base import TaskSet
    from raymeta.tasks.episodes import Episode, Examples
    from raymeta.tree import params_sha256

__version__ = "0.1.0"

_HOMES = {
    "ANIL": "algorithms.anil",
    "Algorithm": "algorithms.base",
    "Baseline": "algorithms.baseline",
    "Episode": "tasks.episodes",
    "Examples": "tasks.episodes",
    "JointTraining": "algorithms.joint",
    "MAML": "algorithms.maml",
    "MetaSGD": "algorithms.meta_sgd",
    "ModelSpec": "models.base",
    "ProtoNet": "algorithms.protonet",
    "RaymetaError": "errors",
    "Reptile": "algorithms.reptile",
    "SweepView": "api.load",
    "TaskKey": "keys",
    "TaskSet": "tasks.base",
    "load_run": "api.load",
    "meta_gradient": "api.gradient",
    "meta_test": "api.evaluate",
    "meta_train": "api.train",
    "params_sha256": "tree",
}

__all__ = [
    "ANIL",
    "MAML",
    "Algorithm",
    "Baseline",
    "Episode",
    "Examples",
    "JointTraining",
    "MetaSGD",
    "ModelSpec",
    "ProtoNet",
    "RaymetaError",
    "Reptile",
    "SweepView",
    "TaskKey",
    "TaskSet",
    "load_run",
    "meta_gradient",
    "meta_test",
    "meta_train",
    "params_sha256",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raymeta' has no attribute {name!r}")
    value = getattr(import_module(f"raymeta.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
