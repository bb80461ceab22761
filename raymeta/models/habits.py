"""What a person's model does besides computing outputs: found by running it once, before anything depends on it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from raymeta.autodiff.own_state import OwnState, may_write, text_of_written
from raymeta.errors import ConfigError, RaymetaError
from raymeta.system.signals import raise_if_interrupt
from raymeta.tasks.inputs import Inputs, called, copied, equal, shape_of, sizes_text, tensors_of


class Habits(NamedTuple):
    """Of a model; the defaults are those of a network that only computes."""

    head: str | None = None
    """name of the linear layer that was called last; None without any"""
    changes_inputs: bool = False
    """whether forward writes into the tensor that it is given, or could under some condition"""
    draws: bool = False
    """whether forward draws from Python's or numpy's global generator"""
    writes: tuple[str, ...] = ()
    """buffers and attributes that forward writes"""
    in_eval_mode: frozenset[str] = frozenset()
    """names of the modules that were handed over in eval mode and stay in it"""


ONLY_COMPUTES = Habits()


def habits_of(model: nn.Module, x: Inputs, *, head: str | None = None) -> Habits:
    """Run `model` (whose norms are exact) on x [n, *feature] in its modes of now and in eval mode; leave it as it was.

    `head` names the head where a person did.

    Raises `ConfigError` for a model that cannot take x, returns no tensor, or writes its own learnable parameters.
    """
    own = OwnState(model)  # before there are hooks of ours
    called: list[nn.Module] = []
    handles = [m.register_forward_hook(lambda m, i, o: called.append(m)) for m in model.modules() if _is_head(m)]
    found: list[Habits] = []
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
        changes_inputs=any(one.changes_inputs for one in found) or any(map(_may_change_inputs, model.modules())),
        draws=any(one.draws for one in found),
        writes=tuple(sorted({name for one in found for name in one.writes})),
        in_eval_mode=frozenset(names[id(module)] for module, training in modes.items() if not training),
    )


def _may_change_inputs(module: nn.Module) -> bool:
    return bool(getattr(module, "inplace", False)) or may_write(module)


def _is_head(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _one_run(model: nn.Module, x: Inputs, own: OwnState) -> Habits:
    given = copied(x)
    before = random.getstate(), np.random.get_state(legacy=False)
    params = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    modes = [module.training for module in model.modules()]
    with own.kept(), torch.no_grad(), torch.random.fork_rng(devices=[]), _refused_kernels():
        outputs = _outputs(model, given)
        writes, drew = tuple(own.changed()), own.generators()
    draws = random.getstate() != before[0] or _is_other(np.random.get_state(legacy=False), before[1])
    _give_back(before)
    _require_tensor(outputs)
    if drew:
        raise ConfigError(
            f"the model draws from a random generator that it keeps ({drew[0]}), so its results would depend on what a "
            "process computed before: draw with torch's, numpy's or Python's own functions, which are seeded for every "
            "task"
        )
    _require_unwritten(model, params)
    _require_modes(model, modes)
    with own.kept(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        _require_again(outputs, _outputs(model, copied(x)))
    _give_back(before)
    return Habits(changes_inputs=not equal(given, x), draws=draws, writes=writes)


def _give_back(states: Any) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])


def _require_again(outputs: Any, again: Any) -> None:
    """With everything put back that raymeta sees, a model gives the same outputs for the same inputs."""
    if outputs.shape != again.shape or not torch.equal(outputs.nan_to_num(), again.nan_to_num()):
        raise ConfigError(
            "the model gives other outputs for the same inputs when it is called again, so its results would depend on "
            "what a process computed before: look for counters, lists and generators inside of other objects, for "
            "layers or frozen weights that its forward changes, and keep what changes in buffers of its own"
        )


def _require_modes(model: nn.Module, before: list[bool]) -> None:
    names = [
        name for (name, module), mode in zip(model.named_modules(), before, strict=True) if module.training != mode
    ]
    if names:
        raise ConfigError(
            f"the forward of the model puts {names[0] or 'itself'} into another mode: do it once before handing the "
            "model over, where it stays as it is"
        )


@contextmanager
def _refused_kernels() -> Iterator[None]:
    """What is wrong without an error: the older form of `torch.utils.checkpoint`, and torch's fused weight norm."""

    class Refused:
        @staticmethod
        def apply(*args: object) -> object:
            raise ConfigError(
                "the model uses torch.utils.checkpoint with use_reentrant=True, which derivatives of an inner loop "
                "cannot pass: switch it off in the model, and set checkpoint_inner_steps: true to save memory"
            )

    def refused(*args: object) -> object:
        raise ConfigError(
            "the model calls torch._weight_norm, whose second derivative is wrong: use "
            "torch.nn.utils.parametrizations.weight_norm, which is replaced by an exact one, or write v * (g / norm)"
        )

    module, functions = cast(Any, torch.utils.checkpoint), cast(Any, torch)
    before = module.CheckpointFunction, functions._weight_norm
    module.CheckpointFunction, functions._weight_norm = Refused, refused
    try:
        yield
    finally:
        module.CheckpointFunction, functions._weight_norm = before


def _outputs(model: nn.Module, x: Inputs) -> object:
    try:
        return called(model, x)
    except RaymetaError:
        raise
    except Exception as error:  # a person's code may raise anything here
        raise_if_interrupt(error)
        types = " and ".join(dict.fromkeys(str(value.dtype) for _, value in tensors_of(x)))
        raise ConfigError(f"the model cannot take inputs {sizes_text(shape_of(x))} of {types}: {error}") from error


def _require_tensor(outputs: object) -> None:
    if not isinstance(outputs, Tensor):
        raise ConfigError(
            f"the model returns a {type(outputs).__name__}, and one tensor [n, outputs] is needed: hand over a module "
            "whose forward returns the predictions alone"
        )


def _require_unwritten(model: nn.Module, before: dict[str, Tensor]) -> None:
    names = [n for n, p in model.named_parameters() if n in before and not torch.equal(p.detach(), before[n])]
    if names:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in before:
                    p.copy_(before[name])
        raise ConfigError(text_of_written(names[0]))


def _is_other(state: Any, before: Any) -> bool:
    one, other = copy.copy(state["state"]), before["state"]
    return one["pos"] != other["pos"] or not np.array_equal(one["key"], other["key"])
