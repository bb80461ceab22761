"""Learned optimisers against tuned ones: the loss at the end of an unroll on held-out problems, with paired intervals.

    python benchmarks/learned_optimizers.py                # ten minutes on one core, for quadratics and small networks
    python benchmarks/learned_optimizers.py --steps 10000  # outer steps of each training

SGD, momentum, RMSProp and Adam have the constant rate that ends lowest on validation problems. All are scored on the
same test problems, from the same starts and with the same batches. Writes results/benchmarks/learned-optimizers.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from record import record
from torch import Tensor

import raymeta
from raymeta.api.evaluate import TEST_SEED
from raymeta.api.optimizers import losses_under, tuned
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.models.layers.hand_rules import HANDS
from raymeta.models.layers.optimizer_rules import OptimizerRule
from raymeta.trackers.scores import paired
from raymeta.use.optimizer import rule_of

PROBLEMS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "quadratics": {"l2l": ("quadratics-l2l", {}), "learned_mlp": ("quadratics-l2l", {"algorithm": "learned_mlp"})},
    "glyphs": {"l2l": ("glyphs-l2l", {}), "learned_mlp": ("glyphs-learned-mlp", {})},
}
"""Of each kind of problems the learned optimisers: a preset, and what is another in it."""
VALIDATION, TEST = 32, 128
"""Problems that rates are chosen on, and that all are compared on."""
SMALLER: dict[str, Any] = {"meta_batch_size": 4, "shard_size": 4, "validate_every": 0}
SMALLER |= {"outer.lr": 0.005, "outer.schedule": "cosine"}
"""What suits minutes on one core better than the presets' settings."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(PROBLEMS))
    parser.add_argument("--steps", type=int, default=400, help="outer steps of each training")
    args = parser.parse_args()
    torch.set_num_threads(1)
    content = {name: compared(name, args.steps) for name in PROBLEMS if args.only in (None, name)}
    print(f"wrote {record('learned-optimizers', {'unit': 'loss at the end of an unroll', 'problems': content})}")
    tables = "\n\n".join(table(name, found) for name, found in content.items())
    print(tables)
    return 0


def table(name: str, found: Mapping[str, Any]) -> str:
    """Of one kind of problems, for people."""
    rows = []
    for kind, row in found["optimizers"].items():
        rate = f"{row['rate']:.3g}" if "rate" in row else "learned"
        rows.append(f"| {kind} | {rate} | {row['loss']:.4g} | {row['beyond_best']:+.3g} ± {row['ci95']:.2g} |")
    head = f"| {name}, {found['steps']} steps | rate | loss at the end | beyond {found['best']} |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def compared(name: str, steps: int) -> dict[str, Any]:
    """Every optimiser on the test problems of a kind, and how far it ends from the best tuned one, pair by pair."""
    blueprint = build(load_config(preset=PROBLEMS[name]["l2l"][0]).config, ()).blueprint
    hands = {kind: tuned(blueprint, kind, searched=VALIDATION, tested=TEST, seed=TEST_SEED) for kind in HANDS}
    curves: dict[str, Tensor] = {kind: found.losses for kind, found in hands.items()}
    best = min(curves, key=lambda kind: float(curves[kind][:, -1].mean()))
    rows: dict[str, Any] = {kind: {"rate": found.rate} for kind, found in hands.items()}
    for kind, (preset, options) in PROBLEMS[name].items():
        rule, seconds = trained(preset, options | SMALLER | {"steps": steps})
        rows[kind] = {"outer_steps": steps, "seconds": seconds}
        curves[kind] = losses_under(blueprint, rule, "test", TEST, TEST_SEED)
    for kind, curve in curves.items():
        mean, half = paired(curves[best][:, -1].numpy(), curve[:, -1].numpy())
        rows[kind] |= {"loss": float(curve[:, -1].mean()), "beyond_best": mean, "ci95": half}
        print(f"{name} {kind}: {rows[kind]}", flush=True)
    return {"problems": TEST, "steps": curves[best].shape[1] - 1, "best": best, "optimizers": rows}


def trained(preset: str, options: Mapping[str, Any]) -> tuple[OptimizerRule, float]:
    """The rule that a preset learns with these options, and the seconds that this took."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that a switch drops
        run = raymeta.meta_train(preset=preset, workers=0, output=folder, device="cpu", test_episodes=16, **options)
        return rule_of(run), run.summary["wall_s"]


if __name__ == "__main__":
    sys.exit(main())
