"""Real runs and a sweep of real runs for tests of figures, pages, report and dashboard; all of them small."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta.errors import NonFiniteGradient
from raymeta.runs.read import Run
from raymeta.system.files import write_json

HOSTILE = '<img src=x onerror="document.title=1">&amp;</script><b>'
GLYPHS: dict[str, Any] = {
    "model.width": 8, "meta_batch_size": 8, "shard_size": 4, "steps": 12, "validate_every": 3,
    "validation_episodes": 20, "test_episodes": 20, "outer.lr": 0.01, "checkpoint_every": 100,
}  # fmt: skip
SINE: dict[str, Any] = {
    "model.hidden": [16], "meta_batch_size": 8, "shard_size": 8, "validate_every": 20, "validation_episodes": 20,
    "test_episodes": 20, "algorithm.test_inner_steps": 3, "checkpoint_every": 100,
}  # fmt: skip
KILLED = """
import os, sys
from pathlib import Path
from raymeta.runs.write import RunWriter
writer = RunWriter(Path(sys.argv[1]), steps=100, name="killed")
writer.write_config("seed: 0\\nalgorithm: {name: maml}\\n")
for step in range(1, 8):
    writer.step(step, {"train/query_loss": 1.0 / step})
writer._metrics._file.write(b'{"step": 8, "train/qu')
os.kill(os.getpid(), 9)
"""


def make_runs(folder: Path) -> dict[str, Run]:
    """Two seeds of MAML, prototypical networks, sinusoids, one hostile name, one failed run, one killed for good."""
    runs = {f"maml{seed}": raymeta.meta_train(output=str(folder), seed=seed, **GLYPHS) for seed in (0, 1)}
    runs["protonet"] = raymeta.meta_train(output=str(folder), algorithm="protonet", **GLYPHS)
    runs["sine"] = raymeta.meta_train("sinusoid-maml", output=str(folder), steps=60, **SINE)
    hostile = {**SINE, "steps": 2, "validate_every": 0, "test_episodes": 2}
    runs["hostile"] = raymeta.meta_train("sinusoid-maml", output=str(folder), name=HOSTILE, tags=[HOSTILE], **hostile)
    with pytest.raises(NonFiniteGradient):
        raymeta.meta_train(
            "sinusoid-maml", output=str(folder), name="too far", steps=5, **{**SINE, "algorithm.inner_lr": 1e30}
        )
    runs["failed"] = next(run for path in folder.glob("*too-far*") if (run := Run.open(path)))
    lost = folder / "2026-11-20_0915_killed_k3f9"
    subprocess.run([sys.executable, "-c", KILLED, str(lost)], check=False)
    runs["lost"] = Run.open(lost)
    return runs


def make_sweep(folder: Path, trials: int = 6) -> Path:
    """A sweep of real runs: inner rate and width; the last trial failed, and the one before was stopped early."""
    sweep = folder / "sweeps" / "2026-11-20_0930_rates_abcd"
    rows: list[dict[str, Any]] = []
    for i in range(trials):
        config: dict[str, Any] = {"algorithm.inner_lr": 0.001 * 3**i, "outer.lr": 0.001 * 2 ** (i % 4)}
        config["model.hidden"] = [8 * (1 + i % 3)]
        run = raymeta.meta_train(
            "sinusoid-maml", output=str(sweep / "trials"), **{**SINE, "steps": 10, "validate_every": 5, **config}
        )
        run.path.rename(sweep / "trials" / f"{i:04d}")
        validations = [row for row in Run.open(sweep / "trials" / f"{i:04d}").events() if row["kind"] == "validation"]
        status = "failed" if i == trials - 1 else "stopped early" if i == trials - 2 else "finished"
        own = {"trial": f"{i:04d}", "status": status, "reason": f"NonFinite {HOSTILE}" if status == "failed" else ""}
        score = None if status == "failed" else validations[-1]["value"]
        own |= {"step": 10, "value": score, "ci95": None if score is None else validations[-1]["ci95"], "seed": 0}
        rows.append({**own, "config": config})
        reports = [[row["step"], row["value"], row["ci95"]] for row in validations]
        (sweep / "records").mkdir(exist_ok=True)
        write_json(sweep / "records" / f"{i:04d}.json", {"id": f"{i:04d}", "reports": reports})
    write_sweep(sweep, rows)
    return sweep


def write_sweep(sweep: Path, rows: list[dict[str, Any]]) -> None:
    """The files that a sweep writes about its trials."""
    best = min((row for row in rows if row["value"] is not None), key=lambda row: row["value"])
    summary = {"id": sweep.name, "status": "finished", "metric": "val/mse", "mode": "min", "trials": rows}
    summary["best"] = {"trial": best["trial"], "value": best["value"], "ci95": best["ci95"], "params": best["config"]}
    write_json(sweep / "summary.json", summary)
    (sweep / "best.yaml").write_text("preset: sinusoid-maml\n")
    keys = list(rows[0]["config"])
    with open(sweep / "trials.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "status", "reason", "step", "value", "ci95", "seed", *keys])
        for row in rows:
            own = [row[key] for key in ("trial", "status", "reason", "step", "value", "ci95", "seed")]
            writer.writerow([*own, *(row["config"][key] for key in keys)])


def make_bench(folder: Path) -> Path:
    """A result as `raymeta bench --json` writes it, with a second case that is hostile, beside files that are none."""
    benchmarks = folder / "benchmarks"
    benchmarks.mkdir()
    rows = [
        _bench_row("raymeta vmap", 3151.0, 0.11, 94.2),
        _bench_row("raymeta compiled", 22455.3, 0.78, 109.3),
        _bench_row("torchopt", 473.5, None, 9.1),
        _bench_row("jax jit(vmap)", 28848.8, None, 110.0),
        _bench_row("floor", 12727.5, None, None),
    ]
    plain = {"case": "sinusoid-maml", "tasks": 25, "flops_per_task": 4e5, "peak_flops": 7.2e10, "rows": rows}
    plain["left_out"] = {"higher": "ImportError: no module named higher"}
    hostile = {
        "case": HOSTILE,
        "rows": [_bench_row(f"raymeta {HOSTILE}", 5.0, None, None)],
        "left_out": {HOSTILE: HOSTILE},
    }
    result = {
        "kind": "bench", "command": f"raymeta bench {HOSTILE}", "date": "2026-11-21T10:00:00+00:00",
        "commit": "0123456789abcdef", "changed_since_commit": True, "versions": {"torch": "2.15", HOSTILE: HOSTILE},
        "hardware": {"cpu": f"A processor {HOSTILE}", "cores": 2, "machine": "x86_64", "gpus": []},
        "device": "cpu", "rounds": 2, "cases": [plain, hostile], "later": {"fields": "are passed over"},
    }  # fmt: skip
    write_json(benchmarks / "bench.json", result)
    write_json(benchmarks / "older.json", {**result, "date": "2025-01-01T00:00:00+00:00", "cases": [plain]})
    write_json(benchmarks / "scaling.json", {"command": "python benchmarks/scaling.py", "cases": [plain]})
    (benchmarks / "torn.json").write_text('{"kind": "bench", "cases": [{"ca')
    return benchmarks / "bench.json"


def _bench_row(path: str, rate: float, ratio: float | None, memory: float | None) -> dict[str, Any]:
    def spread(median: float) -> dict[str, float]:
        return {"median": median, "least": 0.9 * median, "most": 1.05 * median}

    row = {"path": path, "tasks_per_s": spread(rate), "of_the_floor": spread(rate / 12727.5), "first_call_s": 0.1}
    row["peak_memory_mb"] = memory  # type: ignore[assignment]
    return row if ratio is None else row | {"best_peer": "jax jit(vmap)", "over_best_peer": spread(ratio)}
