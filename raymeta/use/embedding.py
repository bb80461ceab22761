"""What a model makes of examples before any adapting, and how good that is: neighbours, a linear probe, a map."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from raymeta.autodiff.surroundings import seeded_by
from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.tasks.inputs import Inputs, each_input, num_examples, tensors_of
from raymeta.use.pretrained import AT_ONCE, Pretrained

MapMethod = Literal["pca", "tsne", "umap"]
RIDGES = torch.logspace(-4, 2, 13, dtype=torch.float64)
"""Penalties of the probe that are tried, in units of the mean squared feature."""


def features_of(model: Pretrained, x: Inputs) -> Tensor:
    """Features [n, d], computed some at a time; batch norm uses those that are computed together."""
    count = num_examples(x)
    return torch.cat(
        [
            model.features(each_input(lambda value, start=start: value[start : start + AT_ONCE], x))
            for start in range(0, count, AT_ONCE)
        ]
    )


def raw(x: Inputs) -> Tensor:
    """The inputs themselves as vectors [n, d]."""
    return torch.cat([value.flatten(1).float() for _, value in tensors_of(x)], 1)


def untrained(model: Pretrained) -> Pretrained:
    """The same network with fresh random weights."""
    with seeded_by(1):
        net = model.algorithm.network(model.config.model, model.tasks)
    fresh = {name: p.detach() for name, p in net.named_parameters()}
    params = {n: fresh[n] if n in fresh and fresh[n].shape == v.shape else v for n, v in model.learned.params.items()}
    return Pretrained(model.name, model.config, model.learned._replace(params=params), model.fixed, model.about)


def nearest(z: Tensor, count: int) -> Tensor:
    """Places of the `count` nearest other examples of each [n, count], by cosine similarity."""
    unit = nn.functional.normalize(z.double(), dim=1)
    found = []
    for start in range(0, len(unit), AT_ONCE):
        similar = unit[start : start + AT_ONCE] @ unit.T
        similar[torch.arange(len(similar)), torch.arange(start, start + len(similar))] = -torch.inf
        found.append(similar.topk(min(count, len(unit) - 1), dim=1).indices)
    return torch.cat(found)


class Probe(NamedTuple):
    """Leave-one-out accuracy of a linear classifier on features."""

    accuracy: float
    ridge: float


def linear_probe(z: Tensor, labels: Tensor) -> Probe:
    """Ridge regression to one-hot labels, each example predicted by a fit without it: all of it in closed form.

    ŷ₋ᵢ = yᵢ − (yᵢ − ŷᵢ) / (1 − hᵢᵢ) with h the hat matrix; the penalty is the best of `RIDGES` by the same accuracy.
    """
    z = z.double()
    z = (z - z.mean(0)) / z.std(0).clamp_min(1e-9)
    ones = torch.cat([z, z.new_ones(len(z), 1)], 1)
    y = nn.functional.one_hot(labels).double()
    u, s, _ = torch.linalg.svd(ones, full_matrices=False)
    probes = []
    for ridge in RIDGES:
        shrink = s.square() / (s.square() + ridge * len(z))
        fitted, leverage = (u * shrink) @ (u.T @ y), (u.square() * shrink).sum(1)
        left_out = y - (y - fitted) / (1 - leverage).clamp_min(1e-9)[:, None]
        probes.append(Probe(float((left_out.argmax(1) == labels).double().mean()), float(ridge)))
    return max(probes, key=lambda probe: probe.accuracy)


def flat_map(z: Tensor, method: MapMethod, seed: int = 0) -> Tensor:
    """Two coordinates for each example [n, 2]. Raises `EnvironmentProblem` without the package of a method."""
    z = z.double() - z.double().mean(0)
    if len(z) < 3:
        raise ConfigError(f"a map needs at least 3 examples, and there are {len(z)}")
    if method == "pca":
        u, s, _ = torch.linalg.svd(z, full_matrices=False)
        flat = u[:, :2] * s[:2]
        signs: Tensor = flat[flat.abs().argmax(0), torch.arange(flat.shape[1])].sign()  # else left to the library
        turned: Tensor = flat * signs
        return turned
    module, package = {"tsne": ("sklearn.manifold", "scikit-learn"), "umap": ("umap", "umap-learn")}[method]
    if find_spec(module.partition(".")[0]) is None:
        raise EnvironmentProblem(f"--map-method {method} needs {package}: pip install {package}, or use pca")
    found = import_module(module)
    if method == "tsne":
        mapper = found.TSNE(random_state=seed, perplexity=min(30, (len(z) - 1) / 3))
    else:
        mapper = found.UMAP(random_state=seed)
    places: Tensor = torch.as_tensor(mapper.fit_transform(z.numpy()))
    return places


def judged(model: Pretrained, x: Inputs, z: Tensor, labels: Sequence[str]) -> dict[str, Probe]:
    """The probe on the model's features, on the raw inputs, and on those of the untrained network."""
    classes = sorted(set(labels))
    y = torch.tensor([classes.index(label) for label in labels])
    return {
        "features": linear_probe(z, y),
        "raw inputs": linear_probe(raw(x), y),
        "untrained network": linear_probe(features_of(untrained(model), x), y),
    }
