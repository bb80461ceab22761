"""What a person's model does besides computing outputs: found by running it once, before anything depends on it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from raymeta.errors import ConfigError, RaymetaError
from raymeta.models.own_state import OwnState
from raymeta.signals import raise_if_interrupt


class Habits(NamedTuple):
    """Of a model; the defaults are those of a network that only computes."""

    head: str | None = None
    """name of the linear layer that was called last; None without any"""
    changes_inputs: bool = False
    """whether forward writes into the tensor that it is given"""
    draws: bool = False
    """whether forward draws from Python's or numpy's global generator"""
    writes: tuple[str, ...] = ()
    """buffers and attributes that forward writes"""
    in_eval_mode: frozenset[str] = frozenset()
    """names of the modules that were handed over in eval mode and stay in it"""


ONLY_COMPUTES = Habits()


def habits_of(model: nn.Module, x: Tensor, *, head: str | None = None) -> Habits:
    """Run `model` (whose norms are exact) on x [n, *feature] in its modes of now and in eval mode; leave it as it was.

    `head` names the head where a person did.

    Raises `ConfigError` for a model that cannot take x, returns no tensor, or writes its own learnable parameters.
    """
    called: list[nn.Module] = []
    handles = [m.register_forward_hook(lambda m, i, o: called.append(m)) for m in model.modules() if _is_head(m)]
    found: list[Habits] = []
    own = OwnState(model)
    modes = {module: module.training for module in model.modules()}
    try:
        found = [_one_run(model, x, own)]
        model.eval()
        found.append(_one_run(model, x, own))
    finally:
        for module, training in modes.items():
            module.training = training
        for handle in handles:
            handle.remove()
    names = {id(module): name for name, module in model.named_modules()}
    if head is not None and head not in names.values():
        raise ConfigError(
            f"model.head: the model has no layer {head}; it has {', '.join(filter(None, names.values()))}"
        )
    last = names[id(called[-1])] if called else None
    return Habits(
        head=head or last,
        changes_inputs=any(one.changes_inputs for one in found),
        draws=any(one.draws for one in found),
        writes=tuple(sorted({name for one in found for name in one.writes})),
        in_eval_mode=frozenset(names[id(module)] for module, training in modes.items() if not training),
    )


def _is_head(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _one_run(model: nn.Module, x: Tensor, own: OwnState) -> Habits:
    given = x.clone()
    before = random.getstate(), np.random.get_state(legacy=False)
    params = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with own.kept(), torch.no_grad(), torch.random.fork_rng(devices=[]), _refused_recomputation():
        outputs = _outputs(model, given)
        writes, drew = tuple(own.changed()), own.generators()
    _require_tensor(outputs)
    if drew:
        raise ConfigError(
            f"the model draws from a random generator that it keeps ({drew[0]}), so its results would depend on what a "
            "process computed before: draw with torch's, numpy's or Python's own functions, which are seeded for every "
            "task"
        )
    _require_unwritten(model, params)
    draws = random.getstate() != before[0] or _is_other(np.random.get_state(legacy=False), before[1])
    random.setstate(before[0])
    np.random.set_state(before[1])
    return Habits(changes_inputs=not torch.equal(given, x), draws=draws, writes=writes)


@contextmanager
def _refused_recomputation() -> Iterator[None]:
    """The older form of `torch.utils.checkpoint` loses the derivatives of all parameters without an error."""

    class Refused:
        @staticmethod
        def apply(*args: object) -> object:
            raise ConfigError(
                "the model uses torch.utils.checkpoint with use_reentrant=True, which derivatives of an inner loop "
                "cannot pass: switch it off in the model, and set checkpoint_inner_steps: true to save memory"
            )

    module: Any = torch.utils.checkpoint
    before, module.CheckpointFunction = module.CheckpointFunction, Refused
    try:
        yield
    finally:
        module.CheckpointFunction = before


def _outputs(model: nn.Module, x: Tensor) -> object:
    try:
        return model(x)
    except RaymetaError:
        raise
    except Exception as error:  # a person's code may raise anything here
        raise_if_interrupt(error)
        shape = ", ".join(map(str, x.shape[1:]))
        raise ConfigError(f"the model cannot take inputs [n, {shape}] of {x.dtype}: {error}") from error


def _require_tensor(outputs: object) -> None:
    if not isinstance(outputs, Tensor):
        raise ConfigError(
            f"the model returns a {type(outputs).__name__}, and one tensor [n, outputs] is needed: hand over a module "
            "whose forward returns the predictions alone"
        )


def _require_unwritten(model: nn.Module, before: dict[str, Tensor]) -> None:
    written = [n for n, p in model.named_parameters() if n in before and not torch.equal(p.detach(), before[n])]
    if written:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in before:
                    p.copy_(before[name])
        raise ConfigError(
            f"the forward of the model writes its own parameter {written[0]}, which is learned: compute the changed "
            "values inside of forward, or register a parametrization (torch.nn.utils.parametrize)"
        )


def _is_other(state: Any, before: Any) -> bool:
    one, other = copy.copy(state["state"]), before["state"]
    return one["pos"] != other["pos"] or not np.array_equal(one["key"], other["key"])
