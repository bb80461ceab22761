"""A few test episodes written out: what the model saw, and how adapting changed its mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from raymeta.adaptation.problem import Learned, Phase
from raymeta.autodiff.failures import exact_attention
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.keys import Split, TaskKey
from raymeta.models.shapes import type_of
from raymeta.system.files import sync_directory, write_json
from raymeta.system.signals import raise_if_interrupt
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, in_type, stack_episodes
from raymeta.tasks.inputs import only

GAP = 2
"""Pixels around each image of a sheet."""
SIDES_GAP = 4 * GAP
"""Pixels between support and query."""
PICTURE_CHANNELS = (1, 3)
"""Grey and colour: what the channels of other inputs mean, nobody knows."""


def write_episodes(
    folder: Path, blueprint: Blueprint, learned: Learned, *, split: Split, seed: int, ranks: Mapping[int, int]
) -> list[str]:
    """Write `episode-INDEX.json` for each index of `ranks`, and `episode-INDEX.png` where the inputs are images.

    The JSON holds the episode's rank among all that were scored (1 is the worst), the query targets, the names of its
    classes where they have any, and the predictions before and after each inner step: class probabilities
    [K + 1, Q, way], or values, with their standard deviations where a distribution is predicted. In the picture each
    row is a class: its support images, a gap, its query images; `boxes` says where each image is.

    These are ornaments of a run that has its score: what cannot be made is left out. Returns what and why.
    """
    left_out: dict[str, None] = {}
    with ornament(left_out, "test episodes"):
        folder.mkdir(parents=True, exist_ok=True)
        blueprint = blueprint.on_cpu()
        for index, rank in ranks.items():
            with ornament(left_out, "test episodes"):
                _write_episode(folder, blueprint, learned, TaskKey(seed, split, 0, index), rank, left_out)
        sync_directory(folder)
    return list(left_out)


def _write_episode(
    folder: Path, blueprint: Blueprint, learned: Learned, key: TaskKey, rank: int, left_out: dict[str, None]
) -> None:
    episode = blueprint.tasks.episode(key)
    outputs, deviations = predictions(blueprint, learned, key, episode)
    content: dict[str, Any] = {"key": key._asdict(), "rank": rank}
    content |= {"support_y": episode.support.y, "query_y": episode.query.y}
    if blueprint.tasks.goal == "classification":
        content |= {"probabilities": outputs.softmax(-1), "predicted": outputs.argmax(-1)}
        if names := class_names(blueprint.tasks, key.split, episode):
            content["class_names"] = names
    else:
        content |= {"support_x": episode.support.x, "query_x": episode.query.x, "predicted": outputs}
        if deviations is not None:
            content["deviation"] = deviations
    shape = blueprint.tasks.input_shape
    if isinstance(shape, tuple) and len(shape) == 3 and blueprint.tasks.goal == "classification":
        with ornament(left_out, "pictures of test episodes"):
            sheet(episode).save(folder / f"episode-{key.index:04d}.png", optimize=True)
            content["boxes"] = boxes(episode)
    write_json(folder / f"episode-{key.index:04d}.json", content)


def class_names(tasks: TaskSet, split: Split, episode: Episode) -> list[str] | None:
    """What people call the classes 0, 1, ... of an episode; None where they have no names."""
    if episode.support.class_id is None:
        return None
    found = dict(zip(episode.support.y.tolist(), episode.support.class_id.tolist(), strict=True))
    names = [tasks.class_name(split, found[label]) for label in sorted(found)]
    return None if None in names else [str(name) for name in names]


@contextmanager
def ornament(left_out: dict[str, None], what: str) -> Iterator[None]:
    """Whatever a person's own model or task set raises here costs `what`, and not the run."""
    try:
        yield
    except Exception as error:
        raise_if_interrupt(error)
        cause = str(error).partition("\n")[0][:200] or "no message"
        left_out[f"{what} are left out: {type(error).__name__}: {cause}"] = None


def predictions(blueprint: Blueprint, learned: Learned, key: TaskKey, episode: Episode) -> tuple[Tensor, Tensor | None]:
    """What is predicted for the queries before and after each inner step [K + 1, Q, outputs]: on the CPU, in the
    network type; and its standard deviations, of a method that predicts distributions."""
    problem = blueprint.problem()
    problem.set_training(False)
    dtype = type_of(problem.model)
    learned, episode = learned.in_type(dtype), in_type(dtype, episode)
    batch = stack_episodes([episode])
    phase = Phase(training=False, way=problem.way_of(batch))
    noise = blueprint.algorithm.noise(problem, [key], batch, phase)
    one = {name: value[0] for name, value in noise.items()}
    with torch.no_grad(), exact_attention():
        adaptation = blueprint.algorithm.adapt(problem, learned, episode.support, noise=one, phase=phase)
        outputs = [predict(episode.query.x) for predict in adaptation.predictors]
        values = outputs if adaptation.point is None else [adaptation.point(one) for one in outputs]
        spread = None if adaptation.deviation is None else torch.stack([adaptation.deviation(one) for one in outputs])
        return torch.stack(values), spread


def sheet(episode: Episode) -> Image.Image:
    """One row per class: support images, a wider gap, query images; raises `ValueError` for what is no picture."""
    channels, height, width = only(episode.support.x).shape[1:]
    if channels not in PICTURE_CHANNELS:
        raise ValueError(f"inputs of {channels} channels are no pictures, which have 1 or 3")
    places = boxes(episode)
    corners = np.array([box for side in places.values() for box in side])[:, :2].max(0)
    pixels = np.full((corners[1] + height + GAP, corners[0] + width + GAP, channels), 128, np.uint8)
    for side, found in zip(episode, places.values(), strict=True):
        for image, (left, top, _, _) in zip(only(side.x), found, strict=True):
            pixels[top : top + height, left : left + width] = _bytes(image)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def boxes(episode: Episode) -> dict[str, list[list[int]]]:
    """Where each image lies in the sheet, as [left, top, width, height] in pixels, for support and query.

    Classes may have unlike numbers of images: queries begin beyond the longest support.
    """
    height, width = only(episode.support.x).shape[-2:]
    longest = max(Counter(episode.support.y.tolist()).values())
    places: dict[str, list[list[int]]] = {"support": [], "query": []}
    starts = (0, longest * (width + 2 * GAP) + SIDES_GAP)
    for side, found, start in zip(episode, places.values(), starts, strict=True):
        filled: Counter[int] = Counter()
        for label in side.y.tolist():
            left = start + filled[label] * (width + 2 * GAP)
            found.append([left + GAP, label * (height + 2 * GAP) + GAP, width, height])
            filled[label] += 1
    return places


def _bytes(image: Tensor) -> NDArray[np.uint8]:
    """[C, H, W] in [0, 1] as [H, W, C] bytes."""
    found: NDArray[np.uint8] = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return found
