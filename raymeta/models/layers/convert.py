"""A person's model made exact: layers whose torch kernels lack right derivatives are replaced; names, values stay."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrizations
from torch.nn.utils.weight_norm import WeightNorm as WeightNormHook

from raymeta.errors import ConfigError
from raymeta.models.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, name_norms
from raymeta.models.layers.parametrized import make_picklable
from raymeta.models.layers.weight_norm import ExactWeightNormHook, WeightNorm
from raymeta.system.signals import raise_if_interrupt

M = TypeVar("M", bound=nn.Module)

_InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d
_WeightNorm: Any = parametrizations._WeightNorm


def convert(module: nn.Module) -> nn.Module:
    """A deep copy of `module` with exact norms: batch, instance, layer and group norm, and weight norm of both kinds.

    Names, values, dtypes, ties and hooks of parameters and buffers stay, and so do training flags. A batch or
    instance norm that is in eval mode with running statistics keeps using these, whatever mode it is put in later.
    Subclasses are left as they are, since their forward may differ. The copy can be pickled where parametrized.

    Raises `ConfigError` for what cannot be made right, by name: a module without a shape yet, one that writes what an
    inner loop must not change, modules that nn.Module does not know of, and wrappers that hide the module itself.
    """
    for name, child in module.named_modules():
        _refuse(name, child)
    _refuse_unregistered(module)
    root = _copied(module)
    _settle_modes(root)
    exact = {id(child): _EXACT[type(child)](child) for child in list(root.modules()) if type(child) in _EXACT}
    result = exact.get(id(root), root)
    for parent in list(root.modules()):
        _replace(parent, exact)
    _keep_modes(result)
    name_norms(result)
    make_picklable(result)
    return result


def _copied(module: nn.Module) -> nn.Module:
    try:
        root = copy.deepcopy(module, {id(value): value.detach().clone() for value in _kept_results(module)})
    except Exception as error:  # of whatever objects the model keeps
        raise_if_interrupt(error)
        raise ConfigError(
            f"the model cannot be copied ({type(error).__name__}: {error}): keep no locks, files, generators or "
            "results of computations on it"
        ) from error
    for child in root.modules():
        for name, buffer in child._buffers.items():
            if buffer is not None and buffer.layout == torch.strided and 0 in buffer.stride():
                child._buffers[name] = buffer.clone(memory_format=torch.contiguous_format)  # of memory of its own
    return root


def _settle_modes(root: nn.Module) -> None:
    """Put into eval mode what a `train` of the model's own would put there, in training mode."""
    if not root.training or all(type(child).train is nn.Module.train for child in root.modules()):
        return
    before = {child: child.training for child in root.modules()}
    root.train()
    for child, training in before.items():
        child.training &= training


def _replace(parent: nn.Module, exact: dict[int, nn.Module]) -> None:
    """Children, hooks of weight norm, and what a list of the module's own refers to."""
    for name, child in parent._modules.items():
        parent._modules[name] = exact.get(id(child), child)
    for number, hook in parent._forward_pre_hooks.items():
        if type(hook) is WeightNormHook:
            parent._forward_pre_hooks[number] = ExactWeightNormHook(hook.name, hook.dim)
    for name, value in _own_attributes(parent):
        vars(parent)[name] = _replaced(value, exact)


def _replaced(value: Any, exact: dict[int, nn.Module]) -> Any:
    if isinstance(value, list):
        value[:] = [_replaced(item, exact) for item in value]
    elif type(value) is tuple:
        return tuple(_replaced(item, exact) for item in value)
    elif isinstance(value, dict):
        value.update({key: _replaced(item, exact) for key, item in value.items()})
    return exact.get(id(value), value)


def _keep_modes(model: nn.Module) -> None:
    for child in model.modules():
        if isinstance(child, BatchNorm | InstanceNorm) and not child.training and child.running_mean is not None:
            child.frozen = True


def _refuse(name: str, module: nn.Module) -> None:
    label = f"{name or 'the model'} ({type(module).__name__})"
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        raise ConfigError(f"{label} has no shape yet: run the model once on an example before handing it over")
    if isinstance(module, _BatchNorm) and type(module) not in _EXACT and module.running_mean is not None:
        raise ConfigError(
            f"{label} is a subclass of batch norm that writes running statistics in its forward, which an inner loop "
            "must not do: use nn.BatchNorm itself, or give it track_running_stats=False"
        )
    if isinstance(module, _InstanceNorm) and module.training and module.running_mean is not None:
        raise ConfigError(
            f"{label} keeps running statistics, which it would use at test and an inner loop must not write: give it "
            "track_running_stats=False, or put it in eval mode if the statistics that it has are meant"
        )
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        _refuse_embedding(label, module)
    if isinstance(module, torch.jit.ScriptModule):
        raise ConfigError(
            f"{label} is compiled by TorchScript, which cannot be given other parameters: hand over the module as it "
            "is before torch.jit.script or torch.jit.trace"
        )
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ConfigError(
            f"{label} spreads its batch over devices by itself: hand over its .module; workers take its place"
        )
    if hasattr(module, "_orig_mod"):
        raise ConfigError(
            f"{label} was made by torch.compile: hand over the module as it is before it, and set compile: true"
        )


def _refuse_embedding(label: str, module: nn.Embedding | nn.EmbeddingBag) -> None:
    if module.sparse:
        raise ConfigError(f"{label} has sparse gradients, which cannot be differentiated again: leave sparse=True out")
    if module.max_norm is not None:
        raise ConfigError(
            f"{label} shortens its own weights in every forward, which an inner loop must not do: leave max_norm out, "
            "and normalise the vectors after the layer"
        )


def _refuse_unregistered(module: nn.Module) -> None:
    registered = {id(child) for child in module.modules()}
    for name, parent in module.named_modules():
        for attribute, value in _own_attributes(parent):
            for hidden in _found(nn.Module, value):
                if id(hidden) not in registered and [*hidden.parameters(), *hidden.buffers()]:
                    where = f"{name}.{attribute}".lstrip(".")
                    raise ConfigError(
                        f"{where} holds a {type(hidden).__name__} outside of nn.ModuleList and nn.ModuleDict, so its "
                        "parameters and buffers are not the model's: register it; requires_grad_(False) keeps it fixed"
                    )


def _kept_results(module: nn.Module) -> Iterator[Tensor]:
    """Results of computations that modules keep as attributes, which torch does not copy."""
    for child in module.modules():
        for _, value in _own_attributes(child):
            yield from (tensor for tensor in _found(Tensor, value) if not tensor.is_leaf)


def _own_attributes(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(module).items() if name not in _OF_EVERY_MODULE]


def _found(kind: type[Any], value: Any) -> Iterator[Any]:
    """Objects of a kind in `value`, or in the lists and dictionaries that it is made of."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, list | tuple | dict):
        inner: Iterable[Any] = value.values() if isinstance(value, dict) else value
        for item in inner:
            yield from _found(kind, item)


def _batch_norm(old: nn.Module) -> nn.Module:
    assert isinstance(old, _BatchNorm)
    return _adopt(BatchNorm(old.num_features, eps=old.eps, momentum=old.momentum), old)


def _instance_norm(old: nn.Module) -> nn.Module:
    assert isinstance(old, _InstanceNorm)
    return _adopt(InstanceNorm(old.num_features, eps=old.eps), old)


def _layer_norm(old: nn.Module) -> nn.Module:
    assert isinstance(old, nn.LayerNorm)
    return _adopt(LayerNorm(old.normalized_shape, eps=old.eps), old)


def _group_norm(old: nn.Module) -> nn.Module:
    assert isinstance(old, nn.GroupNorm)
    return _adopt(GroupNorm(old.num_groups, old.num_channels, eps=old.eps), old)


def _weight_norm(old: nn.Module) -> nn.Module:
    return _adopt(WeightNorm(old.dim), old)  # type: ignore[arg-type]


def _adopt(new: M, old: nn.Module) -> M:
    """`new` with all that any nn.Module has taken from `old`: parameters, buffers, hooks and the training flag."""
    for attribute in _OF_EVERY_MODULE:
        new.__dict__[attribute] = old.__dict__[attribute]
    return new


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))

_EXACT: dict[type[nn.Module], Callable[[nn.Module], nn.Module]] = {
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    nn.InstanceNorm1d: _instance_norm,
    nn.InstanceNorm2d: _instance_norm,
    nn.InstanceNorm3d: _instance_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    _WeightNorm: _weight_norm,
}
