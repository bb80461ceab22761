"""Learned optimisers against tuned ones: the loss at the end of an unroll on held-out problems, with paired intervals.

    python benchmarks/learned_optimizers.py --root FOLDER                 # all kinds; FOLDER is that of Omniglot
    python benchmarks/learned_optimizers.py --only digits --steps 600     # one kind, five minutes; the others stay

The optimisers learn on training problems: quadratics of ten dimensions, and perceptrons with 20 hidden units on drawn
characters, on characters of Omniglot (classes of their own for the test) and on scikit-learn's digits (other images).
SGD, momentum, RMSProp and Adam have the constant rate that ends lowest on validation problems. All are scored on the
same test problems, from the same starts and with the same batches. Writes results/benchmarks/learned-optimizers.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from digits import digits
from record import RESULTS, record
from torch import Tensor

import raymeta
from raymeta.api.evaluate import TEST_SEED
from raymeta.api.optimizers import losses_under, tuned
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.models.layers.hand_rules import HANDS
from raymeta.models.layers.optimizer_rules import OptimizerRule
from raymeta.runs.provenance import provenance
from raymeta.tasks import from_function
from raymeta.trackers.scores import paired
from raymeta.use.optimizer import rule_of

NETWORKS = {"preset": "glyphs-l2l"}
OWN_PRESETS = {("glyphs", "learned_mlp"): "glyphs-learned-mlp"}
"""Methods that have a preset for a kind, with another estimate of the gradient (persistent evolution strategies)."""
PROBLEMS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "quadratics": lambda _: {"preset": "quadratics-l2l"},
    "glyphs": lambda _: NETWORKS,
    "omniglot": lambda asked: NETWORKS | OMNIGLOT | {"tasks.root": asked.root},
    "digits": lambda _: NETWORKS | {"tasks": from_function(digits), "model.shrink": 1},
}
"""Each kind of problems as options: functions, and small networks on images of ten classes."""
OMNIGLOT = {"tasks": "omniglot", "tasks.way": 10, "tasks.shot": 15, "tasks.query_shot": 1}
METHODS = ("l2l", "learned_mlp")
COMMAND = "python benchmarks/learned_optimizers.py"
VALIDATION, TEST = 32, 128
"""Problems that rates are chosen on, and that all are compared on."""
SMALLER: dict[str, Any] = {"meta_batch_size": 4, "shard_size": 4, "validate_every": 0}
SMALLER |= {"outer.lr": 0.005, "outer.schedule": "cosine"}
"""What suits minutes on one core better than the presets' settings."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(PROBLEMS))
    parser.add_argument("--steps", type=int, default=400, help="outer steps of each training")
    parser.add_argument("--root", help="folder of Omniglot")
    asked = parser.parse_args()
    if asked.root is None and asked.only in (None, "omniglot"):
        parser.error("--root: the folder of Omniglot is needed; --only KIND measures another kind alone")
    torch.set_num_threads(1)
    path = RESULTS / "learned-optimizers.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"problems": {}}
    kept = {name: {"made": made(before), **found} for name, found in before["problems"].items()}
    for name in [asked.only] if asked.only else PROBLEMS:
        found = compared(name, PROBLEMS[name](asked), asked.steps)
        kept[name] = {"made": made(provenance(f"{COMMAND} --only {name} --steps {asked.steps}")), **found}
        record("learned-optimizers", {"unit": "loss at the end of an unroll", "problems": kept})
        print(table(name, kept[name]), flush=True)
    print(f"wrote {path}")
    return 0


def made(content: Mapping[str, Any]) -> dict[str, str]:
    """Where the numbers of a kind come from: a file holds those of several commands."""
    return {key: content[key] for key in ("command", "date", "commit")}


def table(name: str, found: Mapping[str, Any]) -> str:
    """Of one kind of problems, for people."""
    rows = []
    for kind, row in found["optimizers"].items():
        rate = f"{row['rate']:.3g}" if "rate" in row else "learned"
        rows.append(f"| {kind} | {rate} | {row['loss']:.4g} | {row['beyond_best']:+.3g} ± {row['ci95']:.2g} |")
    head = f"| {name}, {found['steps']} steps | rate | loss at the end | beyond {found['best']} |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def compared(name: str, problems: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Every optimiser on the test problems of a kind, and how far it ends from the best tuned one, pair by pair."""
    blueprint = build(load_config(overrides=dict(problems)).config, ()).blueprint
    hands = {kind: tuned(blueprint, kind, searched=VALIDATION, tested=TEST, seed=TEST_SEED) for kind in HANDS}
    curves: dict[str, Tensor] = {kind: found.losses for kind, found in hands.items()}
    best = min(curves, key=lambda kind: float(curves[kind][:, -1].mean()))
    rows: dict[str, Any] = {kind: {"rate": found.rate} for kind, found in hands.items()}
    unroll = {f"algorithm.{part}": getattr(blueprint.algorithm, part) for part in ("unroll", "windows", "batch_size")}
    for method in METHODS:
        own = OWN_PRESETS.get((name, method))
        options = {"preset": own} if own else {**problems, "algorithm": method, **unroll}
        rule, seconds = trained({**options, **SMALLER, "steps": steps})
        rows[method] = {"outer_steps": steps, "seconds": seconds}
        curves[method] = losses_under(blueprint, rule, "test", TEST, TEST_SEED)
    for kind, curve in curves.items():
        mean, half = paired(curves[best][:, -1].numpy(), curve[:, -1].numpy())
        rows[kind] |= {"loss": float(curve[:, -1].mean()), "beyond_best": mean, "ci95": half}
        print(f"{name} {kind}: {rows[kind]}", flush=True)
    return {"problems": TEST, "steps": curves[best].shape[1] - 1, "best": best, "optimizers": rows}


def trained(options: Mapping[str, Any]) -> tuple[OptimizerRule, float]:
    """The rule that is learned with these options, and the seconds that this took."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that a switch drops
        run = raymeta.meta_train(workers=0, output=folder, device="cpu", test_episodes=16, **options)
        return rule_of(run), run.summary["wall_s"]


if __name__ == "__main__":
    sys.exit(main())
