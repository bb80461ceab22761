"""Does the left-out accuracy of `raymeta adapt` tell what new pictures will meet? Four methods, trained on emoji.

    python benchmarks/left_out.py --root FOLDER    # with emoji/emoji32.npz

Each method trains on the training emoji for the same time in one process. Then test emoji, five at a time and three
pictures of each, are the support set; their four other pictures are the new ones. Writes
results/benchmarks/left-out.json: how often the accuracy on new pictures lies in the 95 % interval that adapting told,
widened by the sampling error of the new pictures themselves, and the mean difference. Fails where the share is below
0.9.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from own_images import WAY, Emoji, read, write
from record import record
from torch import Tensor

import raymeta
from raymeta.trackers.scores import half_width
from raymeta.use.opening import open_model
from raymeta.use.pretrained import Pretrained
from raymeta.use.trust import interval

METHODS: dict[str, dict[str, Any]] = {
    "maml": {"algorithm.inner_lr": 0.1, "algorithm.inner_steps": 3},
    "anil": {"algorithm.inner_lr": 0.1, "algorithm.inner_steps": 3},
    "protonet": {"tasks.train_way": 20},
    "r2d2": {},
}
TRIALS, SHOT, ENOUGH = 60, 3, 0.9


class Trial(NamedTuple):
    """One support set: accuracy when left out and on new pictures, and whether the two agree."""

    left_out: float
    new: float
    agree: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with emoji/")
    parser.add_argument("--seconds", type=float, default=60, help="of training, for each method [60]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    emoji = read(arguments.root / "emoji" / "emoji32.npz")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that the preset's switch drops
        folder = write(emoji, Path(place), unseen=())
        table = {name: summary(trials(trained(name, folder, arguments.seconds), emoji, folder)) for name in METHODS}
    for name, row in table.items():
        print(f"{name:9} left out {row['left_out']:.3f}, new {row['new']:.3f}, agree in {row['agree']:.2f} of {TRIALS}")
    unit = f"accuracy, {WAY}-way {SHOT}-shot, test emoji"
    content = {"unit": unit, "trials": TRIALS, "training_seconds": arguments.seconds, "methods": table}
    met = all(row["agree"] >= ENOUGH for row in table.values())
    print(f"wrote {record('left-out', {**content, 'met': met})}")
    return 0 if met else 1


def trained(name: str, folder: Path, seconds: float) -> Pretrained:
    options: dict[str, Any] = {"tasks": "images", "tasks.root": str(folder / "seen"), "tasks.side": 32}
    options |= {"tasks.channels": 3, "tasks.way": WAY, "tasks.shot": SHOT, "tasks.query_shot": 4, "steps": 100_000}
    options |= {"model": "conv4", "model.width": 16, "meta_batch_size": 4, "shard_size": 4, "validate_every": 0}
    options |= {"test_episodes": 20, "device": "cpu", "output": str(folder / "runs"), "time_limit": f"{seconds:g}s"}
    options |= {"compile": False}
    return open_model(str(raymeta.meta_train(algorithm=name, **(options | METHODS[name])).path))


def trials(model: Pretrained, emoji: Emoji, folder: Path) -> list[Trial]:
    """The same support sets and new pictures for every model."""
    draws = np.random.default_rng(0)
    names = [name for name, split in zip(emoji.names, emoji.split, strict=True) if split == "test"]
    found = []
    for _ in range(TRIALS):
        chosen = [str(name) for name in draws.choice(names, WAY, replace=False)]
        files = [[folder / "seen" / "test" / n / f"{s}.png" for s in draws.permutation(emoji.styles)] for n in chosen]
        support = [path for own in files for path in own[:SHOT]]
        new = [path for own in files for path in own[SHOT:]]
        found.append(trial(model, support, new))
    return found


def trial(model: Pretrained, support: list[Path], new: list[Path]) -> Trial:
    seen, unseen = (model.reader.read(files) for files in (support, new))
    assert isinstance(seen, Tensor)
    assert isinstance(unseen, Tensor)
    adapted = raymeta.adapt_to(model, seen, [path.parent.name for path in support])
    assert adapted.left_out is not None
    said = [prediction.label for prediction in adapted.predict(unseen)]
    right = sum(label == path.parent.name for label, path in zip(said, new, strict=True))
    low, high = interval(right, len(new))
    agree = low <= adapted.left_out.high and adapted.left_out.low <= high
    return Trial(adapted.left_out.accuracy, right / len(new), agree)


def summary(found: list[Trial]) -> dict[str, float]:
    left_out, new, agree = (np.array(values, float) for values in zip(*found, strict=True))
    means = {"left_out": left_out.mean(), "new": new.mean(), "agree": agree.mean()}
    return means | {"difference": (new - left_out).mean(), "difference_ci95": half_width(new - left_out)}


if __name__ == "__main__":
    sys.exit(main())
