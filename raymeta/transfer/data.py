"""CIFAR-10 and CIFAR-100 in torchvision's layout: read, cut to a share of labels, augmented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from raymeta.errors import DataError
from raymeta.tasks.images.cifar100 import read_values

SIDE, PAD = 32, 4


class Labelled(NamedTuple):
    """Images [n, 3, 32, 32] uint8 with class labels [n]."""

    x: Tensor
    y: Tensor


class Data(NamedTuple):
    """A data set's training and test part."""

    train: Labelled
    test: Labelled


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


def subset(data: Labelled, fraction: float, seed: int) -> Labelled:
    """The same share of every class, at least one image each; smaller fractions are subsets of larger ones."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    chosen = []
    for label in np.unique(data.y.numpy()):
        rows = rng.permutation(np.flatnonzero(data.y.numpy() == label))
        chosen.append(rows[: max(1, round(fraction * len(rows)))])
    order = torch.from_numpy(np.sort(np.concatenate(chosen)))
    return Labelled(data.x[order], data.y[order])


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
