"""The same network from torch's own layers, as another library would be given it."""

from __future__ import annotations

import copy

from torch import nn

from raymeta.errors import ConfigError
from raymeta.models.norm import BatchNorm, Norm


def plain(module: nn.Module) -> nn.Module:
    """A copy with torch's batch norm, names and values kept; it always uses the statistics of its batch."""
    result = copy.deepcopy(module)
    for name, layer in list(result.named_modules()):
        if not isinstance(layer, Norm):
            continue
        if not isinstance(layer, BatchNorm) or layer.weight is None:
            raise ConfigError(f"bench compares networks with batch norm or none; {name} is another norm")
        images = any(isinstance(m, nn.Conv2d) for m in result.modules())
        kind = nn.BatchNorm2d if images else nn.BatchNorm1d
        norm = kind(layer.weight.numel(), eps=layer.eps, track_running_stats=False)
        norm.load_state_dict(dict(layer.named_parameters()), strict=False)
        parent, _, child = name.rpartition(".")
        setattr(result.get_submodule(parent), child, norm)
    return result
