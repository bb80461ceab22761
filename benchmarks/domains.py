"""Domains that were never seen: MLDG against ERM, each domain held out in turn, on the same data and seeds.

    python benchmarks/domains.py                                # drawn characters turned by six angles, no data needed
    python benchmarks/domains.py --source emoji --root FOLDER   # groups of emoji in seven styles

The level is DomainBed's lesson: parity. The mean over held-out domains differs by no more than its paired 95 % interval
over seeds. Writes results/benchmarks/domains-SOURCE.json and fails unless the level is met.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from paired import NETWORKS, difference, over_seeds, trained
from record import record

PRESETS = {"erm": "glyphs-erm", "mldg": "glyphs-mldg"}
DOMAINS = {
    "glyphs": ("0", "15", "30", "45", "60", "75"),
    "emoji": ("twemoji", "noto", "noto-v1", "fluent-emoji-flat", "fluent-emoji", "emojione", "openmoji"),
}


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(1)
    common: dict[str, Any] = {"steps": arguments.steps, **NETWORKS[arguments.model]}
    if arguments.source == "emoji":
        common |= {"tasks.source": "emoji", "tasks.root": arguments.root, "tasks.label": "group"}
        common |= {"tasks.domains": "styles", "meta_batch_size": 5}  # six domains to train on, one of them put aside
    runs = {method: _runs(method, arguments, common) for method in PRESETS}
    scores = {m: {d: [run["accuracy"] for run in some] for d, some in by.items()} for m, by in runs.items()}
    means = {m: [sum(column) / len(column) for column in zip(*by.values(), strict=True)] for m, by in scores.items()}
    domains = {d: difference(scores["erm"][d], scores["mldg"][d]) for d in DOMAINS[arguments.source]}
    overall = difference(means["erm"], means["mldg"])
    met = abs(overall["mean"]) <= overall["ci95"]
    content = {"unit": "accuracy of the held-out domain", "source": arguments.source, "runs": runs}
    content |= {"options": {name: value for name, value in common.items() if name != "tasks.root"}}
    content |= {"scores": {m: {d: over_seeds(v) for d, v in by.items()} for m, by in scores.items()}}
    content |= {"means": {m: over_seeds(values) for m, values in means.items()}, "mldg_minus_erm": domains}
    content |= {"mldg_minus_erm_mean": overall, "met": met}
    for method, mean in content["means"].items():
        print(f"{method}: {100 * mean['mean']:.2f} ± {100 * mean['ci95']:.2f} %")
    print(f"parity: {met}; wrote {record(f'domains-{arguments.source}', content)}")
    return 0 if met else 1


def _runs(method: str, arguments: argparse.Namespace, common: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """A run for each domain and seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for domain in DOMAINS[arguments.source]:
        for seed in range(arguments.seeds):
            options = common | {"tasks.held_out": domain, "tasks.data_seed": seed}
            run = trained(PRESETS[method], seed=seed, **options)
            print(f"{method} without {domain}, seed {seed}: {100 * run['accuracy']:.2f} %", flush=True)
            found.setdefault(domain, []).append(run)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=tuple(DOMAINS), default="glyphs")
    parser.add_argument("--root", help="folder of the source's data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--model", choices=NETWORKS, default="conv4", help="mlp takes a tenth of the time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
