"""Losses by name or import path, and metrics of a person's own; both are functions of (outputs, y)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from raymeta.errors import ConfigError
from raymeta.system.their_code import imported
from raymeta.tasks.base import Goal
from raymeta.tasks.border import cross_entropy, squared_error
from raymeta.trackers.scores import LOSS, OF_GOAL

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy of outputs [n, classes, ...] and class ids, weighted by class and smoothed where asked."""

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        # Of the task's own classes, where training has more.
        own = None if self.class_weights is None else outputs.new_tensor(self.class_weights[: outputs.shape[1]])
        return F.cross_entropy(outputs, y, weight=own, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class OfTwoLabels:
    """λ L(outputs, y) + (1 − λ) L(outputs, y') for labels that are given as rows (y, y', λ), with one λ for a task; the
    loss itself for others."""

    loss: Loss

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        if not are_two(y):
            return self.loss(outputs, y)
        share = y[0, 2]
        return share * self.loss(outputs, y[:, 0].long()) + (1 - share) * self.loss(outputs, y[:, 1].long())


def are_two(y: Tensor) -> bool:
    """Whether labels of a mixed task are rows (y, y', λ); ids are whole numbers."""
    return y.is_floating_point()


def huber(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean Huber loss with its change from squares to lines at 1; shapes are checked as for squares."""
    squared_error(outputs, y)
    return F.huber_loss(outputs, y)


def absolute_error(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error; shapes are checked as for squares."""
    squared_error(outputs, y)
    return F.l1_loss(outputs, y)


LOSSES: dict[str, tuple[Goal, Loss]] = {
    "cross_entropy": ("classification", cross_entropy),
    "mse": ("regression", squared_error),
    "l1": ("regression", absolute_error),
    "huber": ("regression", huber),
}


def loss_of(
    name: str | None, goal: Goal, *, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0
) -> Loss | None:
    """The loss called `name`, or at an import path; None for the default one of `goal`.

    Raises `ConfigError` for a name that does not exist, a loss of another goal, and options of another loss.
    """
    goal_of = LOSSES[name][0] if name in LOSSES else None
    if name is not None and goal_of is None and ":" not in name:
        raise ConfigError(
            f"loss {name}: choose one of {', '.join(LOSSES)}, or give the import path of a function of (outputs, y)"
        )
    if goal_of not in (None, goal):
        raise ConfigError(f"loss {name} is one of {goal_of}, and the tasks are {goal}: leave it out, or choose another")
    if class_weights is not None or label_smoothing:
        if goal != "classification" or name not in (None, "cross_entropy"):
            raise ConfigError("class_weights and label_smoothing are of the loss cross_entropy: leave them out")
        return CrossEntropy(None if class_weights is None else tuple(class_weights), label_smoothing)
    if name is None:
        return None
    return LOSSES[name][1] if name in LOSSES else function_at(name, "loss")


def metrics_of(paths: Sequence[str]) -> Mapping[str, Loss]:
    """Functions at import paths by their own names, under which their values are reported.

    Raises `ConfigError` for two of one name, and for a name of raymeta's own.
    """
    found: dict[str, Loss] = {}
    for path in paths:
        name = path.rpartition(":")[2].rpartition(".")[2]
        if name in found or name in (LOSS, *OF_GOAL.values()):
            raise ConfigError(f"metrics: two values would be called {name}: give the function at {path} another name")
        found[name] = function_at(path, "metrics")
    return found


def function_at(path: str, what: str) -> Loss:
    """The function at an import path; raises `ConfigError` where there is none."""
    function = imported(path, what)
    if not callable(function):
        raise ConfigError(f"{what} {path} is a {type(function).__name__}, not a function of (outputs, y)")
    result: Loss = function() if isinstance(function, type) else function
    return result
