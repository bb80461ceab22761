"""What benchmarks of one training problem share: a run to its end, and differences over the same seeds."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import raymeta
from raymeta.sweeps.records import Report, mean_and_interval

NETWORKS: dict[str, dict[str, Any]] = {"conv4": {"model.width": 16}, "mlp": {"model": "mlp", "model.hidden": [64]}}
"""Networks by name; neither has a norm that reads a batch."""


def trained(preset: str, **options: Any) -> dict[str, Any]:
    """Test accuracy of a run of `preset` in this process, and its seconds; the last checkpoint is scored."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that a switch of method drops
        run = raymeta.meta_train(preset, output=folder, device="cpu", validate_every=0, **options)
        summary = run.summary or {}
    headline = summary["headline"]
    told = {"accuracy": headline["value"], "ci95_of_run": headline["ci95"], "params_sha256": summary["params_sha256"]}
    return told | {"seconds": round(time.perf_counter() - start, 1)}


def runs_of(
    arms: Mapping[str, tuple[str, Mapping[str, Any]]], seeds: int, common: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Each arm, a preset with options of its own, once for each seed, which also chooses data and parts."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for seed in range(seeds):
        for name, (preset, options) in arms.items():
            asked = {**common, **options, "seed": seed, "tasks.data_seed": seed}
            runs[name].append(trained(preset, **asked))
            print(f"seed {seed} {name}: {100 * runs[name][-1]['accuracy']:.2f} %", flush=True)
    return runs


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds with Student's 95 % interval, and the values."""
    mean, ci95 = mean_and_interval([Report(0, value, 0.0) for value in values])
    return {"mean": mean, "ci95": ci95, "values": list(values)}


def difference(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """`other` − `one`, seed by seed."""
    return over_seeds([b - a for a, b in zip(one, other, strict=True)])
