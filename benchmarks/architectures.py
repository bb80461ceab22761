"""Architectures that were searched against random ones of equal size, each trained from the start on the same data.

    python benchmarks/architectures.py                                   # drawn characters, no data needed
    python benchmarks/architectures.py --source omniglot --root FOLDER   # characters of Omniglot

darts of first and second order and enas search with the training half of the images and the clean half. What they find
is then trained on the training half alone, as random architectures are, and scored on test images. Five seeds, each of
which also chooses classes and parts. The level: each search above the mean of the random architectures by more than the
paired 95 % interval over seeds. Writes results/benchmarks/architectures-SOURCE.json and fails unless the level is met.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from paired import difference, over_seeds, trained
from record import record

import raymeta

SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "darts_first": ("glyphs-darts", {"algorithm.order": "first", "algorithm.architecture_lr": 0.01}),
    "darts_second": ("glyphs-darts", {"algorithm.order": "second", "algorithm.architecture_lr": 0.01}),
    "enas": ("glyphs-enas", {}),
}
NODES = 2
CELLS: dict[str, Any] = {"model.cells": 3, "model.stem_stride": 2, "model.norm": "layer"}
BATCHES: dict[str, Any] = {"meta_batch_size": 2, "shard_size": 2, "tasks.batch": 16, "tasks.clean_batch": 16}
BATCHES["vectorize"] = "loop"


def main() -> int:
    arguments = _arguments()
    common = _data(arguments) | CELLS | BATCHES
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(of_seed, seed, common, arguments) for seed in range(arguments.seeds)]
        runs = [job.result() for job in jobs]
    scores = {name: [run[name]["accuracy"] for run in runs] for name in SEARCHES}
    scores["random"] = [float(np.mean([one["accuracy"] for one in run["random"]])) for run in runs]
    above = {name: difference(scores["random"], scores[name]) for name in SEARCHES}
    met = {name: value["mean"] > value["ci95"] for name, value in above.items()}
    content: dict[str, Any] = {"unit": "accuracy on test images", "source": arguments.source, "runs": runs}
    content |= {"options": {name: value for name, value in common.items() if name != "tasks.root"}}
    content |= {"scores": {name: over_seeds(values) for name, values in scores.items()}}
    content |= {"difference_to_random": above, "met": met}
    for name, score in content["scores"].items():
        print(f"{name}: {100 * score['mean']:.2f} ± {100 * score['ci95']:.2f} %")
    print(f"met: {met}; wrote {record(f'architectures-{arguments.source}', content)}")
    return 0 if all(met.values()) else 1


def of_seed(seed: int, common: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """What each search finds and how that does when it is trained, and the same of random architectures."""
    torch.set_num_threads(1)
    common = common | {"seed": seed, "tasks.data_seed": seed}
    found: dict[str, Any] = {}
    for name, (preset, options) in SEARCHES.items():
        searched = search(preset, steps=arguments.search_steps, **common, **options)
        found[name] = searched | derived(searched["genotype"], common, arguments)
        print(f"seed {seed} {name}: {100 * found[name]['accuracy']:.2f} % {searched['genotype']}", flush=True)
    names = [f"random:{seed * arguments.random + number}" for number in range(arguments.random)]
    found["random"] = [{"genotype": name} | derived(name, common, arguments) for name in names]
    print(f"seed {seed} random: {[round(100 * one['accuracy'], 2) for one in found['random']]} %", flush=True)
    return found


def search(preset: str, **options: Any) -> dict[str, Any]:
    """The architecture that is found, and the seconds that it takes."""
    start = time.perf_counter()
    sizes = {"model": "supernet", "model.width": 4, "model.nodes": NODES}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images that fill no batch
        run = raymeta.meta_train(preset, output=folder, device="cpu", **{**sizes, **options})
        genotype = (run.summary or {})["found"]["genotype"]
    return {"genotype": genotype, "search_seconds": round(time.perf_counter() - start, 1)}


def derived(genotype: str, common: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Test accuracy of an architecture that is trained from the start."""
    sizes = {"model": "derived", "model.genotype": genotype, "model.width": 8, "model.nodes": NODES}
    return trained("glyphs-plain", **{**common, **sizes, "tasks.noise": "none", "steps": arguments.steps})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=("glyphs", "omniglot"), default="glyphs")
    parser.add_argument("--root", help="folder of the source's data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--random", type=int, default=3, help="random architectures of each seed")
    parser.add_argument("--search-steps", type=int, default=50)
    parser.add_argument("--steps", type=int, default=120, help="of training what was found")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def _data(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of the images: classes, and parts of each."""
    sizes: dict[str, Any] = {"tasks.classes": 20, "tasks.clean": 0.4, "tasks.val": 0, "tasks.test": 0.2}
    own = {"tasks.drawers": 60} if arguments.source == "glyphs" else {"tasks.root": arguments.root}
    return sizes | own | {"tasks.source": arguments.source}


if __name__ == "__main__":
    sys.exit(main())
