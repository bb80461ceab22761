"""A learned optimiser as one of torch.optim, for a problem of somebody's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from raymeta.algorithms.learned_optimizer import OPTIMIZER, LearnedOptimizer
from raymeta.api.checkpoints import best_checkpoint, run_config
from raymeta.config.variants import name_of
from raymeta.errors import CheckpointError, ConfigError
from raymeta.models.layers.optimizer_rules import OptimizerRule
from raymeta.runs.read import Run, resolve_run
from raymeta.tree import outer_type


class TrainedOptimizer(Optimizer):
    """Steps parameters as a rule says: it sees gradients alone, and each coordinate by itself.

    There is no rate to choose: the `lr` of a group is a factor on its updates, 1 unless given, for schedulers of torch.
    The rule's state lies in `state` and `state_dict`, as that of other optimisers does. All parameters are on one
    device.
    """

    def __init__(self, rule: OptimizerRule, params: Iterable[Any]) -> None:
        super().__init__(params, {"lr": 1.0})
        first: Tensor = self.param_groups[0]["params"][0]
        self.rule = rule.to(first.device, outer_type(first.dtype)).requires_grad_(False)
        self.dtype = outer_type(first.dtype)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises `ValueError` for a negative `lr`."""
        super().add_param_group(param_group)
        if (lr := self.param_groups[-1]["lr"]) < 0:
            raise ValueError(f"Invalid lr: {lr}: it is a factor on updates, 0 or more")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient; returns what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                update = group["lr"] * self._update(parameter)
                parameter.add_(update.view_as(parameter).to(parameter.dtype))
        return loss

    def _update(self, parameter: Tensor) -> Tensor:
        """The rule's answer to the gradient of a parameter [n], with which its state moves on."""
        assert parameter.grad is not None
        slope = parameter.grad.reshape(-1).to(self.dtype)
        if not self.state[parameter]:
            self.state[parameter].update(self.rule.start(slope))
        update: Tensor
        update, after = self.rule(slope, self.state[parameter])
        self.state[parameter].update(after)
        return update

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # a state from before there was a factor
            group.setdefault("lr", 1.0)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`. The rule's state keeps its type: torch alone would round it to the parameters'."""
        super().load_state_dict(state_dict)
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        own = chain.from_iterable(group["params"] for group in self.param_groups)
        for number, parameter in zip(numbers, own, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[parameter][name] = value.to(parameter.device, self.dtype, copy=True)


def load_optimizer(
    run: str | Run, params: Iterable[Any], *, output: str = "results", trust: bool = False
) -> TrainedOptimizer:
    """The optimiser that a run has learned, at its best checkpoint, for parameters as torch.optim takes them.

    `run` is a run, its folder, its id in `output`, or `latest`. Its data are not needed, and nothing is unpickled.
    With `trust`, code that the run's configuration names is imported.

    Raises `ConfigError` for a run of a method that learns no optimiser, `CheckpointError` for one without a checkpoint.
    """
    return TrainedOptimizer(rule_of(resolve_run(run, output) if isinstance(run, str) else run, trust=trust), params)


def rule_of(run: Run, *, trust: bool = False) -> OptimizerRule:
    """The rule of a run's best checkpoint; see `load_optimizer`."""
    here = {"workers": 0, "min_workers": None, "max_workers": None}
    algorithm = run_config(run, here, trust=trust or run.trusted).algorithm
    if not isinstance(algorithm, LearnedOptimizer):
        raise ConfigError(
            f"{run.id} has learned no optimiser: its algorithm is {name_of(algorithm)}. Load a run of l2l or "
            "learned_mlp, or use raymeta.from_pretrained for a model"
        )
    rule, checkpoint = algorithm.rule(), best_checkpoint(run)
    tensors, start = checkpoint.fixed | checkpoint.learned.params, f"{OPTIMIZER}."
    try:
        rule.load_state_dict({n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)})
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint of {run.id} does not fit its configuration: was the method's code changed since? ({error})"
        ) from error
    return rule
