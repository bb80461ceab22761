"""Kinds of images that one model is to serve alike: styles, angles, folders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raymeta.errors import DataError
from raymeta.tasks.classification.labelled import Labelled


def by_angle(data: Labelled, angles: Sequence[float], seed: int) -> Labelled:
    """Each image in one of the domains `angles`, equally many of each class, turned by it, counter-clockwise."""
    (order,) = data.draws(seed, "angle", 1).T
    domain = np.zeros(len(order), np.int64)
    for c in range(len(data.classes)):
        rows = np.flatnonzero(data.label == c)
        domain[rows[order[rows].argsort(kind="stable")]] = np.arange(len(rows)) % len(angles)
    images = data.images.copy()
    for d, angle in enumerate(angles):
        for row in np.flatnonzero(domain == d):
            images[row] = turned(data.images[row], angle, white=data.white_paper)
    return data._replace(images=images, domain=domain, domains=[f"{angle:g}" for angle in angles])


def turned(image: NDArray[np.uint8], angle: float, *, white: bool) -> NDArray[np.uint8]:
    """[channels, height, width] by `angle` degrees about its middle, bilinearly; corners are white or black."""
    plain = Image.fromarray(image.transpose(1, 2, 0) if len(image) == 3 else image[0])
    fill = (255 if white else 0,) * len(image)
    rotated = plain.rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill if len(image) == 3 else fill[0])
    return np.asarray(rotated).reshape(*image.shape[1:], len(image)).transpose(2, 0, 1)


def by_folder(data: Labelled) -> Labelled:
    """Of classes called DOMAIN/CLASS: the same classes in every domain. Raises `DataError` where names differ."""
    parts = [name.partition("/") for name in data.classes]
    flat = [name for name, (_, _, inner) in zip(data.classes, parts, strict=True) if not inner]
    if flat:
        raise DataError(
            f"tasks.domains folders: {', '.join(flat[:5])} hold images themselves. Put a folder for each domain around "
            "the class folders, ROOT/DOMAIN/CLASS/*"
        )
    domains, classes = (sorted({part[i] for part in parts}) for i in (0, 2))
    there = set(data.classes)
    missing = [f"{domain}/{name}" for domain in domains for name in classes if f"{domain}/{name}" not in there]
    if missing:
        raise DataError(
            f"tasks.domains folders: every domain needs every class, and there is no {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}"
        )
    label, domain = (np.array([names.index(part[i]) for part in parts]) for names, i in ((classes, 2), (domains, 0)))
    before = np.bincount(data.label, minlength=len(parts))
    item = data.item + _started(label, domain, before)[data.label]
    return data._replace(
        label=label[data.label], domain=domain[data.label], item=item, classes=classes, domains=domains
    )


def _started(label: NDArray[np.int64], domain: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Images of the same class in earlier domains, for each folder: from there its own are numbered."""
    earlier = (label[:, None] == label) & (domain < domain[:, None])
    started: NDArray[np.int64] = (earlier * counts).sum(1)
    return started


def place_of(name: str | None, domains: Sequence[str]) -> int | None:
    """Number of the domain called `name`. Raises `DataError` where there is none."""
    if name is None:
        return None
    if name not in domains:
        there = f"the domains are {', '.join(domains)}" if domains else "there are none without tasks.domains"
        raise DataError(f"tasks.held_out {name} is no domain: {there}")
    return list(domains).index(name)
