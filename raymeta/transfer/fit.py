"""The network of a transfer run, how it is trained, and how it starts from another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.models.layers.norm import drop_running_statistics
from raymeta.models.resnet12 import ResNet12
from raymeta.transfer.data import SIDE, Labelled, augment, scaled


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, from scratch or from a pre-trained start."""

    epochs: int
    lr: float
    batch_size: int
    momentum: float = 0.9
    weight_decay: float = 5e-4


def network(arch: str, width: int, num_classes: int, seed: int) -> nn.Module:
    """A ResNet for 32x32 images; its head is the submodule `fc` or `head`.

    The batch norm of resnet12 uses the batch at test, too; that of resnet18 is torch's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arch == "resnet12":
            network = ResNet12(widths=(width, 2 * width, 4 * width, 8 * width)).build((3, SIDE, SIDE), num_classes)
            drop_running_statistics(network)
            return network
        try:
            from torchvision.models import resnet18
        except ImportError as error:
            raise EnvironmentProblem("resnet18 needs torchvision: pip install 'raymeta[vision]'") from error
        model: nn.Module = resnet18(num_classes=num_classes)
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
        return model


def head_name(model: nn.Module) -> str:
    """Name of the classifying layer."""
    return next(name for name, _ in model.named_children() if name in ("fc", "head"))


def start_from(model: nn.Module, base: nn.Module) -> None:
    """Copy everything but the head from `base`, and set the new head to zero: its first predictions are uniform."""
    head = head_name(model)
    body = {name: value for name, value in base.state_dict().items() if not name.startswith(f"{head}.")}
    model.load_state_dict(body, strict=False)
    with torch.no_grad():
        for parameter in model.get_submodule(head).parameters():
            parameter.zero_()


def fit(model: nn.Module, data: Labelled, recipe: Recipe, seed: int, device: torch.device) -> None:
    """SGD with momentum and a cosine schedule; the order, crops and flips follow from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    steps = recipe.epochs * math.ceil(len(data.y) / recipe.batch_size)
    step = 0
    model.train()
    for _ in range(recipe.epochs):
        for rows in torch.split(torch.randperm(len(data.y), generator=generator), recipe.batch_size):
            step += 1
            if len(rows) < 2 and steps > 1:  # batch norm cannot normalise a single image
                continue
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
            x = scaled(augment(data.x[rows], generator).to(device))
            loss = F.cross_entropy(model(x), data.y[rows].to(device))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
    if not all(p.isfinite().all() for p in model.parameters()):
        raise ConfigError("training diverged: lower --lr or --finetune-lr")


@torch.no_grad()
def accuracy(model: nn.Module, data: Labelled, device: torch.device) -> float:
    """Share of right predictions in eval mode."""
    model.eval()
    batches = zip(torch.split(data.x, 500), torch.split(data.y, 500), strict=True)
    right = sum(int((model(scaled(x.to(device))).argmax(-1).cpu() == y).sum()) for x, y in batches)
    return right / len(data.y)
