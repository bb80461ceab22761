"""Wrong labels: L2RW and Meta-Weight-Net against training as if all were right, on the same data and seeds.

    python benchmarks/reweighting.py                                   # drawn characters, no data needed
    python benchmarks/reweighting.py --source omniglot --root FOLDER   # alphabets of Omniglot
    python benchmarks/reweighting.py --source emoji --root FOLDER      # groups of emoji

40 % of the labels are uniformly wrong, and 10 images of each class are known to be right. Five seeds, each of which
also chooses classes, parts and wrong labels. The level: each method above plain training by more than the paired 95 %
interval over seeds, and not above training on right labels by more than theirs. Writes
results/benchmarks/reweighting-SOURCE.json and fails unless the level is met.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from paired import NETWORKS, difference, over_seeds, runs_of
from record import record

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("glyphs-plain", {}),
    "clean_only": ("glyphs-plain", {"algorithm.part": "clean"}),
    "oracle": ("glyphs-plain", {"tasks.noise": "none"}),
    "l2rw": ("glyphs-l2rw", {}),
    "meta_weight_net": ("glyphs-meta-weight-net", {}),
}
JUDGED = ("l2rw", "meta_weight_net")


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(1)
    common: dict[str, Any] = {"steps": arguments.steps, **NETWORKS[arguments.model], "model.norm": "layer"}
    common |= _source(arguments)
    runs = runs_of(METHODS, arguments.seeds, common)
    scores = {name: [run["accuracy"] for run in some] for name, some in runs.items()}
    above = {name: difference(scores["plain"], scores[name]) for name in METHODS if name != "plain"}
    above_oracle = {name: difference(scores["oracle"], scores[name]) for name in JUDGED}
    met = {
        name: above[name]["mean"] > above[name]["ci95"] and above_oracle[name]["mean"] <= above_oracle[name]["ci95"]
        for name in JUDGED
    }
    content = {"unit": "accuracy on clean test images", "source": arguments.source, "noise": "uniform_flip 0.4"}
    content |= {"options": {name: value for name, value in common.items() if name != "tasks.root"}, "runs": runs}
    content |= {"scores": {name: over_seeds(values) for name, values in scores.items()}}
    content |= {"difference_to_plain": above, "difference_to_oracle": above_oracle, "met": met}
    for name, score in content["scores"].items():
        print(f"{name}: {100 * score['mean']:.2f} ± {100 * score['ci95']:.2f} %")
    print(f"met: {met}; wrote {record(f'reweighting-{arguments.source}', content)}")
    return 0 if all(met.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=("glyphs", "omniglot", "emoji"), default="glyphs")
    parser.add_argument("--root", help="folder of the source's data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--model", choices=NETWORKS, default="conv4", help="mlp takes a tenth of the time")
    return parser.parse_args()


def _source(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of the images: classes of drawn characters, or groups, of which Omniglot and emoji have enough images."""
    if arguments.source == "glyphs":
        return {}
    return {"tasks.source": arguments.source, "tasks.root": arguments.root, "tasks.label": "group"}


if __name__ == "__main__":
    sys.exit(main())
