"""A few test episodes written out: what the model saw, and how adapting changed its mind."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raymeta.algorithms.problem import Learned, Phase
from raymeta.engine.drawing import in_type
from raymeta.engine.worker import Blueprint
from raymeta.files import sync_directory, write_json
from raymeta.keys import Split, TaskKey
from raymeta.models.differentiable import exact_attention
from raymeta.models.shapes import type_of
from raymeta.tasks.base import Episode, stack_episodes
from raymeta.tree import Params

GAP = 2
"""Pixels around each image of a sheet."""
SIDES_GAP = 4 * GAP
"""Pixels between support and query."""


def write_episodes(
    folder: Path, blueprint: Blueprint, learned: Learned, *, split: Split, seed: int, ranks: Mapping[int, int]
) -> None:
    """Write `episode-INDEX.json` for each index of `ranks`, and `episode-INDEX.png` where the inputs are images.

    The JSON holds the episode's rank among all that were scored (1 is the worst), the query targets, and the
    predictions before and after each inner step: class probabilities [K + 1, Q, way], or values. In the picture each
    row is a class: its support images, a gap, its query images; `boxes` says where each image is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A copy, since an executor in this process may have moved the skeleton to its device.
    blueprint = replace(blueprint, model=copy.deepcopy(blueprint.model).cpu())
    for index, rank in ranks.items():
        key = TaskKey(seed, split, 0, index)
        episode = blueprint.tasks.episode(key)
        outputs = predictions(blueprint, learned, key, episode)
        content: dict[str, Any] = {"key": key._asdict(), "rank": rank}
        content |= {"support_y": episode.support.y, "query_y": episode.query.y}
        if blueprint.tasks.goal == "classification":
            content |= {"probabilities": outputs.softmax(-1), "predicted": outputs.argmax(-1)}
        else:
            content |= {"support_x": episode.support.x, "query_x": episode.query.x, "predicted": outputs}
        if len(blueprint.tasks.input_shape) == 3 and blueprint.tasks.goal == "classification":
            sheet(episode).save(folder / f"episode-{index:04d}.png", optimize=True)
            content["boxes"] = boxes(episode)
        write_json(folder / f"episode-{index:04d}.json", content)
    sync_directory(folder)


def predictions(blueprint: Blueprint, learned: Learned, key: TaskKey, episode: Episode) -> Tensor:
    """Outputs for the queries before and after each inner step [K + 1, Q, outputs], on the CPU."""
    problem = blueprint.problem()
    problem.set_training(False)
    dtype = type_of(problem.model)
    learned, episode = Learned(*(_in_type(dtype, part) for part in learned)), in_type(dtype, episode)
    batch = stack_episodes([episode])
    phase = Phase(training=False, way=problem.way_of(batch))
    noise = blueprint.algorithm.noise(problem, [key], batch.support, phase)
    one = {name: value[0] for name, value in noise.items()}
    with torch.no_grad(), exact_attention():
        adaptation = blueprint.algorithm.adapt(problem, learned, episode.support, noise=one, phase=phase)
        return torch.stack([predict(episode.query.x) for predict in adaptation.predictors])


def _in_type(dtype: torch.dtype, params: Params) -> Params:
    return {name: value.to(dtype) for name, value in params.items()}


def sheet(episode: Episode) -> Image.Image:
    """One row per class: support images, a wider gap, query images."""
    way = int(episode.support.y.max()) + 1
    rows = []
    for label in range(way):
        parts = [side.x[side.y == label] for side in episode]
        images = [np.concatenate([_framed(image) for image in part], axis=1) for part in parts]
        gap = np.full((images[0].shape[0], SIDES_GAP, images[0].shape[2]), 128, np.uint8)
        rows.append(np.concatenate([images[0], gap, images[1]], axis=1))
    pixels = np.concatenate(rows, axis=0)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def boxes(episode: Episode) -> dict[str, list[list[int]]]:
    """Where each image lies in the sheet, as [left, top, width, height] in pixels, for support and query."""
    height, width = episode.support.x.shape[-2:]
    places: dict[str, list[list[int]]] = {"support": [], "query": []}
    filled = dict.fromkeys(range(int(episode.support.y.max()) + 1), 0)
    for side, found in zip(episode, places.values(), strict=True):
        for label in side.y.tolist():
            left = filled[label] * (width + 2 * GAP) + (SIDES_GAP if found is places["query"] else 0)
            found.append([left + GAP, label * (height + 2 * GAP) + GAP, width, height])
            filled[label] += 1
    return places


def _framed(image: Tensor) -> np.ndarray:
    """[C, H, W] in [0, 1] as [H, W, C] bytes with a grey margin."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.pad(pixels, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=128)
