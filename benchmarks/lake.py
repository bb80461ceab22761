"""Methods that compare, on Lake's runs: 20 characters of an unseen alphabet, one drawing each, and another person's.

    taskset -c 0 python benchmarks/lake.py --root FOLDER --budget 60    # with omniglot_bits.npz and all_runs.zip

Trains each method on the background alphabets alone, for the same seconds of the processor, with the options of its
preset and convolutional networks of 16 channels, and scores it on the 20 runs (400 drawings). The nearest drawing by
the modified Hausdorff distance learns nothing, and its error is known exactly: it stands beside them and checks how
the runs were read. Writes results/benchmarks/lake.json after each method; the same command goes on with those that are
missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from budget import Budget, clock_of, in_own_process
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass
from record import RESULTS, record

from raymeta.api.evaluate import evaluate_learned
from raymeta.api.train import Training
from raymeta.config.build import first_chunks
from raymeta.config.load import load_config
from raymeta.engine.executors.base import silent
from raymeta.engine.executors.local import LocalExecutor
from raymeta.keys import Split, TaskKey
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Examples, stack_episodes
from raymeta.tasks.images.omniglot.files import shrink
from raymeta.tasks.images.omniglot.lake_runs import NUM_RUNS, LakeRun, errors_of, modified_hausdorff, read_lake_runs
from raymeta.tasks.images.omniglot.task_set import Omniglot

METHODS = ("protonet", "siamese", "matching", "relation")
WIDTH, SIDE, WAY = 16, 28, 20
PUBLISHED: dict[str, dict[str, Any]] = {
    "people": {"error": 0.045, "evidence": "recalled"},
    "Bayesian program learning": {"error": 0.033, "evidence": "recalled"},
    "siamese, 105 pixels, distorted images": {"error": 0.08, "evidence": "recalled"},
    "simple convolutional network": {"error": 0.135, "evidence": "quoted"},
    "prototypical network": {"error": 0.137, "evidence": "recalled"},
    "modified Hausdorff distance": {"error": 0.388, "evidence": "source"},
}
"""Errors with training on the 30 background alphabets."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LakeRuns(Omniglot):
    """Omniglot by alphabets, whose test tasks are Lake's runs."""

    def num_episodes(self, split: Split) -> int | None:
        return NUM_RUNS if split == "test" else None

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        if keys[0].split != "test":
            return super().episodes(keys)
        runs = lake_runs(str(self.root))
        return stack_episodes([_episode(runs[key.index]) for key in keys])


@cache
def lake_runs(root: str) -> list[LakeRun]:
    return read_lake_runs(Path(root) / "all_runs.zip")


def _episode(run: LakeRun) -> Episode:
    support, query = (torch.from_numpy(_small(ink)) for ink in (run.train, run.test))
    return Episode(Examples(support, torch.arange(WAY)), Examples(query, torch.from_numpy(run.answer)))


def _small(ink: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Drawings [n, 105, 105] as the network saw others in training, [n, 1, 28, 28]."""
    bits = np.packbits(ink.reshape(len(ink), -1), axis=-1)
    return np.divide(shrink(bits, SIDE), 255, dtype=np.float32).reshape(-1, 1, SIDE, SIDE)


def measured(method: str, root: Path, budget_s: float) -> dict[str, Any]:
    """Train and score one method."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="raymeta-lake-") as output:
        sizes: dict[str, Any] = {"way": WAY, "train_way": 60 if method == "protonet" else WAY, "train_query_shot": 5}
        tasks = LakeRuns(root=str(root), split_scheme="lake", query_shot=1, **sizes)
        options: dict[str, Any] = {"tasks": tasks, "model.width": WIDTH, "validate_every": 0, "device": "cpu"}
        options |= {"checkpoint_every": 10**6, "output": output, "compile": False}
        config = load_config(preset=f"omniglot-5w1s-{method}", overrides=options).config
        budget = Budget(budget_s, clock_of(0))
        training = Training(config, stop=budget)
        training.execute()
    built, learned, executor = training.built, training.state.outer.learned, LocalExecutor(training.built.blueprint)
    where: dict[str, Any] = {"run": method, "step": training.state.step, "chunks": first_chunks(config)}
    scores = evaluate_learned(config, built, learned, executor, episodes=NUM_RUNS, notify=silent, **where).scores
    return {"steps": training.state.step, "seconds": budget.spent(), **errors(1 - scores.main[:, -1])}


def errors(of_run: NDArray[np.float64]) -> dict[str, Any]:
    """The error with its 95 % interval over 400 drawings, and of each run."""
    of_run = np.rint(of_run * WAY) / WAY
    error = float(of_run.mean())
    ci95 = 1.96 * (error * (1 - error) / (WAY * NUM_RUNS)) ** 0.5
    return {"error": error, "ci95": ci95, "of_each_run": [round(float(value), 6) for value in of_run]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with omniglot_bits.npz and all_runs.zip")
    parser.add_argument("--budget", type=float, default=60, help="seconds of training for each method")
    asked = parser.parse_args(arguments)
    content: dict[str, Any] = {"budget_s": asked.budget, "width": WIDTH, "threads": 1, "published": PUBLISHED}
    path = RESULTS / "lake.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"budget_s": asked.budget}
    if earlier["budget_s"] != asked.budget:
        parser.error(f"{path.name} was made with --budget {earlier['budget_s']:g}: give that, or remove it")
    rows = earlier.get("methods", {})
    if "hausdorff" not in rows:
        found = errors_of(lake_runs(str(asked.root)), modified_hausdorff)
        rows["hausdorff"] = errors(np.array(found) / 100)
    for method in METHODS:
        if "error" not in rows.get(method, {}):
            rows[method] = in_own_process(measured, method, asked.root, asked.budget)
        print(method, rows[method].get("error", rows[method].get("failed")), flush=True)
        record("lake", {**content, "methods": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
