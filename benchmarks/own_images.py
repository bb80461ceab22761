"""New emoji in styles that no training picture was drawn in: a ProtoNet after five minutes beside raw pixels.

    python benchmarks/own_images.py --root FOLDER    # with emoji/emoji32.npz

It trains on the pictures of training emoji in five styles with two workers. Then it takes test emoji, five at a time
and one picture of each in one of these styles, adapts to them as `raymeta adapt` does, and predicts their other
pictures: those in the other styles that it was trained in, and those in two styles that it never saw. Raw pixels are
the nearest picture of the support set. Writes results/benchmarks/own-images.json and fails unless the ProtoNet is
better by fifteen points or more in both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from record import record
from torch import Tensor

import raymeta
from raymeta.trackers.scores import half_width, paired
from raymeta.use.opening import open_model
from raymeta.use.pretrained import Pretrained

UNSEEN = ("fluent-emoji", "openmoji")
"""Styles of no training picture: shaded in three dimensions, and drawn in outlines."""
KINDS = ("of other pictures in training", "never trained on")
"""Styles of the pictures that are predicted."""
WAY, TRIALS, POINTS = 5, 300, 0.15
TRAINING: dict[str, Any] = {"algorithm": "protonet", "model": "conv4", "outer.lr": 1e-3}
TRAINING |= {"model.width": 32, "model.downsample": "pool", "model.pooling": "flatten", "model.norm": "layer"}
TRAINING |= {"tasks.train_flip": True, "tasks.train_crop": 3, "tasks.train_colour": 0.4}
TRAINING |= {"tasks.way": WAY, "tasks.shot": 1, "tasks.query_shot": 4, "tasks.train_way": 30, "meta_batch_size": 4}
TRAINING |= {"shard_size": 2, "steps": 100_000, "validate_every": 0, "test_episodes": 100, "device": "cpu"}
TRAINING |= {"compile": False}


class Emoji(NamedTuple):
    """Pictures [classes, styles, 32, 32, 3] with the split of each class."""

    images: NDArray[np.uint8]
    names: list[str]
    styles: list[str]
    split: list[str]


class Trial(NamedTuple):
    """Support pictures, one of each class in order, and queries with the places of their classes."""

    support: list[Path]
    queries: list[Path]
    labels: list[int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder with emoji/")
    parser.add_argument("--seconds", type=float, default=300, help="of training, with two workers [300]")
    arguments = parser.parse_args()
    emoji = read(arguments.root / "emoji" / "emoji32.npz")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that the preset's switch drops
        folder = write(emoji, Path(place))
        options: dict[str, Any] = {"tasks": "images", "tasks.root": str(folder / "seen"), "tasks.side": 32}
        options |= {"tasks.channels": 3, "workers": 2, "time_limit": f"{arguments.seconds:g}s"}
        options["output"] = str(Path(place) / "runs")
        run = raymeta.meta_train(**TRAINING, **options)
        model, steps_done = open_model(str(run.path)), (run.summary or {})["steps"]
        began = time.perf_counter()
        table = {kind: row(kind, list(scores(model, emoji, folder, kind))) for kind in KINDS}
        seconds = (time.perf_counter() - began) / (len(KINDS) * TRIALS)
    content = {
        "unit": f"accuracy, {WAY}-way 1-shot, test emoji in other styles than that of the support set",
        "unseen_styles": UNSEEN,
        "trials": TRIALS,
        "training": TRAINING,
        "training_seconds": arguments.seconds,
        "steps_done": steps_done,
        "styles": table,
        "seconds_a_trial": seconds,
        "met": all(found["met"] for found in table.values()),
    }
    print(f"wrote {record('own-images', content)}")
    return 0 if content["met"] else 1


def row(kind: str, found: list[tuple[float, float]]) -> dict[str, Any]:
    """What is written of one kind of styles, and printed."""
    ours, pixels = (np.array(right) for right in zip(*found, strict=True))
    better, half = paired(list(pixels), list(ours))
    print(f"{kind}: protonet {ours.mean():.4f}, raw pixels {pixels.mean():.4f}, better by {better:.4f} ± {half:.4f}")
    return {
        "protonet": {"value": ours.mean(), "ci95": half_width(ours)},
        "raw_pixels": {"value": pixels.mean(), "ci95": half_width(pixels)},
        "difference": {"value": better, "ci95": half},
        "met": bool(better >= POINTS),
    }


def read(packed: Path) -> Emoji:
    with np.load(packed, allow_pickle=False) as found:
        split = [("train", "val", "test")[number] for number in found["split"]]
        return Emoji(found["images"], list(map(str, found["names"])), list(map(str, found["styles"])), split)


def write(emoji: Emoji, folder: Path, unseen: Collection[str] = UNSEEN) -> Path:
    """seen/SPLIT/NAME/STYLE.png in the styles to train on, and unseen/NAME/STYLE.png of the test emoji."""
    for name, split, drawn in zip(emoji.names, emoji.split, emoji.images, strict=True):
        for style, pixels in zip(emoji.styles, drawn, strict=True):
            if style in unseen and split != "test":
                continue
            of_class = folder / "unseen" / name if style in unseen else folder / "seen" / split / name
            of_class.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(of_class / f"{style}.png")
    return folder


def trials(emoji: Emoji, folder: Path, kind: str) -> Iterator[Trial]:
    draws = np.random.default_rng(0)
    names = [name for name, split in zip(emoji.names, emoji.split, strict=True) if split == "test"]
    known = [style for style in emoji.styles if style not in UNSEEN]
    for _ in range(TRIALS):
        chosen = [(str(name), str(draws.choice(known))) for name in draws.choice(names, WAY, replace=False)]
        support = [folder / "seen" / "test" / name / f"{style}.png" for name, style in chosen]
        others = [[other for other in known if other != style] for _, style in chosen]
        if kind == "never trained on":
            queries = [folder / "unseen" / name / f"{style}.png" for name, _ in chosen for style in UNSEEN]
        else:
            queries = [path.with_stem(other) for path, own in zip(support, others, strict=True) for other in own]
        yield Trial(support, queries, [place for place in range(WAY) for _ in range(len(queries) // WAY)])


def scores(model: Pretrained, emoji: Emoji, folder: Path, kind: str) -> Iterator[tuple[float, float]]:
    """Accuracy of each trial, of the adapted model and of raw pixels."""
    for trial in trials(emoji, folder, kind):
        support, queries = (model.reader.read(files) for files in (trial.support, trial.queries))
        assert isinstance(support, Tensor)
        assert isinstance(queries, Tensor)
        adapted = raymeta.adapt_to(model, support, [str(place) for place in range(WAY)])
        said = [int(prediction.label) for prediction in adapted.predict(queries)]
        near = torch.cdist(queries.flatten(1), support.flatten(1)).argmin(1).tolist()
        yield tuple(float(np.mean(np.array(found) == trial.labels)) for found in (said, near))  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main())
