"""Learned changes of images (DADA) against random policies, against the uniform one, and against none.

    python benchmarks/augmentation.py      # drawn characters, no data needed

A narrow network and few images of each class. Five seeds, each of which also chooses the parts, and the random policy.
The level: DADA above random policies by more than the paired 95 % interval over seeds. Writes
results/benchmarks/augmentation-glyphs.json and fails unless the level is met.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from paired import difference, over_seeds, runs_of
from record import record

COMMON: dict[str, Any] = {"tasks.drawers": 45, "tasks.clean": 15, "tasks.val": 5, "tasks.test": 15}
COMMON |= {"model.width": 16}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("glyphs-plain", {"meta_batch_size": 2, "tasks.batch": 32, "tasks.noise": "none"}),
    "random": ("glyphs-dada", {"algorithm.policy": "random"}),
    "uniform": ("glyphs-dada", {"algorithm.policy": "uniform"}),
    "dada": ("glyphs-dada", {}),
}


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(1)
    runs = runs_of(ARMS, arguments.seeds, {**COMMON, "steps": arguments.steps})
    scores = {name: [run["accuracy"] for run in some] for name, some in runs.items()}
    above = {name: difference(scores[name], scores["dada"]) for name in scores if name != "dada"}
    met = above["random"]["mean"] > above["random"]["ci95"]
    content = {"unit": "accuracy on test images", "source": "glyphs", "options": COMMON, "runs": runs}
    content |= {"scores": {name: over_seeds(values) for name, values in scores.items()}}
    content |= {"dada_above": above, "met": met}
    for name, score in content["scores"].items():
        print(f"{name}: {100 * score['mean']:.2f} ± {100 * score['ci95']:.2f} %")
    print(f"met: {met}; wrote {record('augmentation-glyphs', content)}")
    return 0 if met else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
