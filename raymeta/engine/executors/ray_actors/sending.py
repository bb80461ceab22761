"""What a person's model must stand that is to compute in other processes."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from raymeta.autodiff.own_state import OwnState
from raymeta.autodiff.surroundings import seeded_by
from raymeta.errors import ConfigError
from raymeta.system.signals import raise_if_interrupt
from raymeta.tasks.inputs import Inputs, called, copied


def require_same_when_sent(model: nn.Module, x: Inputs) -> None:
    """Raise `ConfigError` unless `model` can be sent and then computes the same outputs of x [n, *feature]."""
    if importlib.util.find_spec("ray") is None:  # the executor will say so
        return
    pickling: Any = importlib.import_module("ray.cloudpickle")
    try:
        sent: nn.Module = pickling.loads(pickling.dumps(model))
    except Exception as error:  # whatever a person's objects raise
        raise_if_interrupt(error)
        raise ConfigError(
            f"the model cannot be sent to workers ({type(error).__name__}: {error}): keep no open files, locks or "
            "functions made by other functions on it, or leave --workers out"
        ) from error
    if not torch.equal(_outputs(model, x), _outputs(sent, x)):
        raise ConfigError(
            "the model computes something else after it was sent to a worker: look for functions of random generators "
            "that it keeps (self.draw = random.random), which are sent with a copy of their generator, and call "
            "random.random() in forward instead"
        )


def _outputs(model: nn.Module, x: Inputs) -> Tensor:
    with seeded_by(0), OwnState(model).kept(), torch.no_grad():
        outputs: Tensor = called(model, copied(x))
    return outputs
