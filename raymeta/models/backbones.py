"""torchvision's classification networks by name."""

from __future__ import annotations

from collections import OrderedDict
from types import ModuleType
from typing import Any

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.models.base import ModelSpec
from raymeta.models.layers.convert import convert
from raymeta.models.layers.norm import name_norms
from raymeta.models.shapes import require_images, require_outputs
from raymeta.options import STRICT
from raymeta.system.text import did_you_mean, nearest
from raymeta.tasks.inputs import Shape

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Backbone(ModelSpec):
    """A network of `torchvision.models` as `body`, its last linear layer replaced by `head`.

    Differences from torchvision: norms are exact under vmap; stochastic depth is off, since it cannot be vectorised;
    grey images are repeated to three channels; vision transformers without pretrained weights are built for the task
    set's image size; inputs in [0, 1] get ImageNet's mean and deviation where the weights are pretrained.
    """

    arch: str = "resnet18"
    """a name that `torchvision.models.get_model` knows: resnet18, mobilenet_v3_small, efficientnet_b0, vit_b_16, …"""
    pretrained: bool = False
    """start from torchvision's default weights, downloaded where they are not cached"""

    def build(self, input_shape: Shape, num_outputs: int | None) -> nn.Module:
        label = f"backbone {self.arch}"
        channels, height, width = require_images(label, input_shape)
        if channels not in (1, 3):
            raise ConfigError(f"{label} takes grey or RGB images; this task set gives {channels} channels")
        body = self._network(_torchvision_models(), height, width)
        num_features = _cut_last_linear(label, body)
        for module in body.modules():
            if type(module).__name__ == "StochasticDepth":
                module.p = 0.0  # type: ignore[assignment]
        head = nn.Identity() if num_outputs is None else nn.Linear(num_features, num_outputs)
        layers = OrderedDict(prepare=Prepare(self.pretrained), body=convert(body), head=head)
        model = nn.Sequential(layers)
        name_norms(model)
        require_outputs(label, model, input_shape, num_outputs)
        return model

    def _network(self, models: ModuleType, height: int, width: int) -> nn.Module:
        names = models.list_models(module=models)
        if self.arch not in names:
            hint = did_you_mean(nearest(self.arch, names, most=3)) or f"known are {', '.join(names)}"
            raise ConfigError(f"model.arch: torchvision has no classification network {self.arch!r}; {hint}")
        options: dict[str, Any] = {}
        if self.arch.startswith("vit_") and not self.pretrained:
            if height != width:
                raise ConfigError(f"backbone {self.arch} needs square images, not {height} x {width}")
            options["image_size"] = height
        if self.arch in ("googlenet", "inception_v3"):  # in training mode their auxiliary classifiers are outputs too
            options |= {"aux_logits": False} if self.pretrained else {"aux_logits": False, "init_weights": True}
        try:
            network: nn.Module = models.get_model(self.arch, weights="DEFAULT" if self.pretrained else None, **options)
        except AssertionError as error:
            raise ConfigError(f"backbone {self.arch} cannot take {height} x {width} images: {error}") from error
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot get pretrained weights of {self.arch}: {error}. Put the file into "
                f"{torch.hub.get_dir()}/checkpoints by hand, or use --model.pretrained false"
            ) from error
        return network


class Prepare(nn.Module):
    """x [n, 1 or 3, h, w] in [0, 1] to [n, 3, h, w], normalised as ImageNet where asked."""

    mean: Tensor
    std: Tensor

    def __init__(self, imagenet: bool) -> None:
        super().__init__()
        self.imagenet = imagenet
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(-1, 3, -1, -1)
        return (x - self.mean) / self.std if self.imagenet else x


def _torchvision_models() -> ModuleType:
    try:
        import torchvision.models
    except ImportError as error:
        raise EnvironmentProblem(
            f"--model backbone needs torchvision ({error}): pip install 'raymeta[vision]'"
        ) from error
    models: ModuleType = torchvision.models
    return models


def _cut_last_linear(label: str, network: nn.Module) -> int:
    """Replace the last linear layer by the identity; answers with its number of inputs."""
    linear = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ConfigError(f"{label} does not end with a linear layer that a head could replace: use another network")
    name, last = linear[-1]
    network.set_submodule(name, nn.Identity())
    return last.in_features
