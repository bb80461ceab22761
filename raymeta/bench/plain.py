"""The same network from torch's own layers, as another library would be given it."""

from __future__ import annotations

import copy
from collections import OrderedDict

from torch import nn

from raymeta.errors import ConfigError
from raymeta.models.layers.norm import BatchNorm, LayerNorm, Norm
from raymeta.models.layers.pooling import MaxPool2x2


def plain(module: nn.Module) -> nn.Module:
    """A copy with torch's layers in the usual order, names and values kept; batch norm uses its batch alone."""
    result = _pool_last(copy.deepcopy(module))
    for name, layer in list(result.named_modules()):
        if not isinstance(layer, Norm):
            continue
        norm = _norm(layer, name, images=any(isinstance(m, nn.Conv2d) for m in result.modules()))
        assert layer.weight is not None
        norm.to(layer.weight.dtype).load_state_dict(dict(layer.named_parameters()), strict=False)
        parent, _, child = name.rpartition(".")
        setattr(result.get_submodule(parent), child, norm)
    return result


def _norm(layer: Norm, name: str, *, images: bool) -> nn.Module:
    """torch's own layer of the same kind."""
    if isinstance(layer, LayerNorm) and layer.weight is not None:
        return nn.LayerNorm(layer.normalized_shape, eps=layer.eps)
    if not isinstance(layer, BatchNorm) or layer.weight is None:
        raise ConfigError(f"bench compares networks with batch norm, layer norm or none; {name} is another norm")
    kind = nn.BatchNorm2d if images else nn.BatchNorm1d
    return kind(layer.weight.numel(), eps=layer.eps, track_running_stats=False)


def _pool_last(module: nn.Module) -> nn.Module:
    """Max-pooling after the ReLU, as everyone writes it; ours stands before it."""
    if not isinstance(module, nn.Sequential):
        return module
    layers = list(module.named_children())
    for i, (name, layer) in enumerate(layers):
        if isinstance(layer, MaxPool2x2):
            layers[i], layers[i + 1] = layers[i + 1], (name, nn.MaxPool2d(2))
    return nn.Sequential(OrderedDict(layers))
