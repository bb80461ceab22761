"""Feature-wise linear modulation (FiLM): channels of a network scaled by γ and shifted by β, for each task its own.

A layer that ends with weight and bias, z · w + b, gives γ(z · w + b) + β if its weight is γw and its bias γb + β:
modulation is a change of parameters, and the network stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raymeta.errors import ConfigError
from raymeta.tree import Params


def film_layers(network: nn.Module, prefix: str = "") -> dict[str, int]:
    """Names of the layers that are modulated, with their channels: norms with gain and shift, or where there are none,
    all layers with weight and bias. Raises `ConfigError` where there is neither."""
    channels = {
        f"{prefix}{name}": (module.weight.dim(), len(bias))
        for name, module in network.named_modules()
        if isinstance(bias := getattr(module, "bias", None), nn.Parameter)
        and isinstance(getattr(module, "weight", None), nn.Parameter)
    }
    norms = {name: count for name, (dims, count) in channels.items() if dims == 1}
    found = norms or {name: count for name, (_, count) in channels.items()}
    if not found:
        raise ConfigError("no layer of the model has a weight and a bias that FiLM could change")
    return found


def modulated(params: Mapping[str, Tensor], layers: Mapping[str, int], gamma: Tensor, beta: Tensor) -> Params:
    """Weights and biases of `layers` under modulation; `gamma` and `beta` hold all channels, layer after layer."""
    sizes, changed = list(layers.values()), {}
    for name, own_gamma, own_beta in zip(layers, torch.split(gamma, sizes), torch.split(beta, sizes), strict=True):
        weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
        changed[f"{name}.weight"] = own_gamma.view(-1, *[1] * (weight.dim() - 1)) * weight
        changed[f"{name}.bias"] = own_gamma * bias + own_beta
    return changed
