"""Transfer: pre-train a ResNet on CIFAR-10, fine-tune it on CIFAR-100 at several label fractions.

    python -m raymeta.transfer --root FOLDER --fractions 0.01,0.05,0.1,0.5,1 --seeds 0,1 --output transfer.json

Beside each fine-tuned network stands one trained from scratch on the same labels with the same budget. FOLDER holds
torchvision's layout: `cifar-10-batches-py` and `cifar-100-python`. The defaults are the usual recipe for CIFAR (SGD
with momentum, cosine schedule, crop and flip, weight decay 5e-4, 200 epochs), which wants a GPU.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.command_line import Parser, add_verbose, dashed, run_command
from raymeta.engine.worker import choose_device
from raymeta.errors import ConfigError, DataError, EnvironmentProblem
from raymeta.files import write_json
from raymeta.models.norm import drop_running_statistics
from raymeta.models.resnet12 import ResNet12
from raymeta.runs.environment import environment
from raymeta.tasks.cifar100 import read_values

SIDE, PAD = 32, 4


class Labelled(NamedTuple):
    """Images [n, 3, 32, 32] uint8 with class labels [n]."""

    x: Tensor
    y: Tensor


class Data(NamedTuple):
    """A data set's training and test part."""

    train: Labelled
    test: Labelled


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, from scratch or from a pre-trained start."""

    epochs: int
    lr: float
    batch_size: int
    momentum: float = 0.9
    weight_decay: float = 5e-4


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("transfer", lambda: _run(arguments), verbose=arguments.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="raymeta transfer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of cifar-10-batches-py and cifar-100-python")
    parser.add_argument("--arch", choices=("resnet18", "resnet12"), default="resnet18", help="network [resnet18]")
    parser.add_argument("--width", type=_count, default=64, help="channels of resnet12's first block [64]")
    parser.add_argument("--epochs", type=_count, default=200, help="epochs of pre-training [200]")
    parser.add_argument("--finetune-epochs", type=_count, default=200, help="epochs on CIFAR-100, both ways [200]")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate from scratch [0.1]")
    parser.add_argument("--finetune-lr", type=float, default=0.01, help="learning rate of fine-tuning [0.01]")
    parser.add_argument("--batch-size", type=_count, default=128, help="images in a mini-batch [128]")
    parser.add_argument("--fractions", type=_fractions, default=_fractions("0.01,0.05,0.1,0.5,1"), help="label shares")
    parser.add_argument("--seeds", type=_seeds, default=(0, 1), help="seeds, comma-separated [0,1]")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute [auto]")
    parser.add_argument("--output", type=Path, help="file for the result as JSON")
    add_verbose(parser)
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _fractions(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    if not all(0 < value <= 1 for value in values):
        raise argparse.ArgumentTypeError("fractions lie above 0 and are at most 1")
    return values


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _run(arguments: argparse.Namespace) -> int:
    device = choose_device(arguments.device)
    small, large = read_cifar10(arguments.root), read_cifar100(arguments.root)
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for row in _one_seed(arguments, seed, small, large, device):
            rows.append(row)
            print(
                f"seed {seed}  {100 * row['fraction']:5.1f} % of the labels ({row['labels']}):  fine-tuned "
                f"{100 * row['finetuned']:.2f} %  from scratch {100 * row['scratch']:.2f} %",
                flush=True,
            )
    curve = summarise(rows)
    print("\nfraction   fine-tuned         from scratch   (mean ± standard deviation over seeds, test accuracy in %)")
    for point in curve:
        pairs = (f"{100 * point[k]['mean']:6.2f} ± {100 * point[k]['std']:.2f}" for k in ("finetuned", "scratch"))
        print(f"{point['fraction']:8.2f}   {'      '.join(pairs)}")
    if arguments.output is not None:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items() if k != "root"}
        write_json(arguments.output, {"settings": settings, "environment": environment(), "runs": rows, "curve": curve})
    return 0


def _one_seed(
    arguments: argparse.Namespace, seed: int, small: Data, large: Data, device: torch.device
) -> list[dict[str, Any]]:
    base = network(arguments.arch, arguments.width, 10, seed).to(device)
    fit(base, small.train, Recipe(arguments.epochs, arguments.lr, arguments.batch_size), seed, device)
    pretrained = accuracy(base, small.test, device)
    rows = []
    for fraction in arguments.fractions:
        labelled = subset(large.train, fraction, seed)
        tuned = network(arguments.arch, arguments.width, 100, seed).to(device)
        start_from(tuned, base)
        scratch = network(arguments.arch, arguments.width, 100, seed).to(device)
        for model, lr in ((tuned, arguments.finetune_lr), (scratch, arguments.lr)):
            fit(model, labelled, Recipe(arguments.finetune_epochs, lr, arguments.batch_size), seed, device)
        rows.append(
            {
                "seed": seed,
                "fraction": fraction,
                "labels": len(labelled.y),
                "pretrained_cifar10": pretrained,
                "finetuned": accuracy(tuned, large.test, device),
                "scratch": accuracy(scratch, large.test, device),
            }
        )
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds by fraction."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}

    fractions = sorted({row["fraction"] for row in rows})
    return [
        {"fraction": f, **{k: spread([r[k] for r in rows if r["fraction"] == f]) for k in ("finetuned", "scratch")}}
        for f in fractions
    ]


def read_cifar10(root: Path) -> Data:
    """CIFAR-10 in torchvision's layout; raises `DataError` naming what is missing."""
    folder = root / "cifar-10-batches-py"
    train = [folder / f"data_batch_{i}" for i in range(1, 6)]
    return Data(_read(train, "labels", 10, "CIFAR10"), _read([folder / "test_batch"], "labels", 10, "CIFAR10"))


def read_cifar100(root: Path) -> Data:
    """CIFAR-100 in torchvision's layout; raises `DataError` naming what is missing."""
    folder = root / "cifar-100-python"
    parts = [_read([folder / name], "fine_labels", 100, "CIFAR100") for name in ("train", "test")]
    return Data(*parts)


def _read(paths: Sequence[Path], labels: str, num_classes: int, name: str) -> Labelled:
    if missing := [path for path in paths if not path.is_file()]:
        raise DataError(
            f"{missing[0]} is missing: --root must hold torchvision's folders; get them with "
            f"torchvision.datasets.{name}(ROOT, download=True)"
        )
    parts = [read_values(path, "data", labels) for path in paths]
    x = np.concatenate([np.asarray(data, dtype=np.uint8) for data, _ in parts]).reshape(-1, 3, SIDE, SIDE)
    y = np.concatenate([np.asarray(values, dtype=np.int64) for _, values in parts])
    if len(x) != len(y) or not ((y >= 0) & (y < num_classes)).all():
        raise DataError(f"{paths[0].parent} is damaged: {len(x)} images, {len(y)} labels below {num_classes}")
    return Labelled(torch.from_numpy(x), torch.from_numpy(y))


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


def subset(data: Labelled, fraction: float, seed: int) -> Labelled:
    """The same share of every class, at least one image each; smaller fractions are subsets of larger ones."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    chosen = []
    for label in np.unique(data.y.numpy()):
        rows = rng.permutation(np.flatnonzero(data.y.numpy() == label))
        chosen.append(rows[: max(1, round(fraction * len(rows)))])
    order = torch.from_numpy(np.sort(np.concatenate(chosen)))
    return Labelled(data.x[order], data.y[order])


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


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image [n, 3, 32, 32] shifted by up to 4 pixels (zeros move in) and mirrored with probability one half."""
    n = len(x)
    padded = F.pad(x, (PAD,) * 4)
    top, left = torch.randint(0, 2 * PAD + 1, (2, n, 1), generator=generator)
    rows, columns = top + torch.arange(SIDE), left + torch.arange(SIDE)
    flips = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.where(flips, columns.flip(1), columns)
    image = torch.arange(n)[:, None, None, None]
    channel = torch.arange(3)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def scaled(x: Tensor) -> Tensor:
    """uint8 images as floats of about unit size."""
    return x.float().div_(127.5).sub_(1)


@torch.no_grad()
def accuracy(model: nn.Module, data: Labelled, device: torch.device) -> float:
    """Share of right predictions in eval mode."""
    model.eval()
    batches = zip(torch.split(data.x, 500), torch.split(data.y, 500), strict=True)
    right = sum(int((model(scaled(x.to(device))).argmax(-1).cpu() == y).sum()) for x, y in batches)
    return right / len(data.y)


if __name__ == "__main__":
    sys.exit(main())
