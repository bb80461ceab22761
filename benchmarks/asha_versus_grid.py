"""Does ASHA find what a full grid finds, with half of its steps? MAML's inner and outer rate on drawn characters.

    python benchmarks/asha_versus_grid.py --steps 300 --concurrent 2

Both sweeps try the same 16 configurations. The grid trains all of them to the end; ASHA stops the worse ones early.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from record import record

from raymeta.sweeps.file.load import load_sweep
from raymeta.sweeps.tune.driver import new_directory, run_sweep

RATES = {"algorithm.inner_lr": [0.03, 0.1, 0.3, 1.0], "outer.lr": [0.0003, 0.001, 0.003, 0.01]}
SCHEDULERS: dict[str, Any] = {"grid": "none", "asha": "asha"}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="outer steps of a whole trial")
    parser.add_argument("--episodes", type=int, default=200, help="validation episodes of each report")
    parser.add_argument("--concurrent", type=int, default=2, help="trials at a time")
    parser.add_argument(
        "--grid", type=Path, help="take the grid from this earlier result, whose trials have equal bits"
    )
    parser.add_argument("--output", type=Path, help="folder for the sweeps; a temporary one unless given")
    arguments = parser.parse_args()
    output = arguments.output or Path(tempfile.mkdtemp(prefix="raymeta-"))
    earlier = json.loads(arguments.grid.read_text()) if arguments.grid else None
    if earlier and (earlier["space"], earlier["steps_per_trial"]) != (RATES, arguments.steps):
        parser.error(f"--grid {arguments.grid}: another space, or other steps")
    grid = earlier["sweeps"]["grid"] if earlier else _sweep("grid", arguments, output)
    asha = _sweep("asha", arguments, output)
    in_grid = next(t["value"] for t in grid["trials"] if t["config"] == asha["params"])
    content = {
        "space": RATES,
        "steps_per_trial": arguments.steps,
        "grid_commit": earlier["commit"] if earlier else None,
        "sweeps": {"grid": grid, "asha": asha},
        "share_of_steps": asha["total_steps"] / grid["total_steps"],
        "distance": grid["value"] - in_grid,
        "within_interval_of_the_best": grid["value"] - in_grid <= grid["ci95"],
    }
    print(record("asha-versus-grid", content).read_text())
    return 0


def _sweep(name: str, arguments: argparse.Namespace, output: Path) -> dict[str, Any]:
    file = output / f"{name}.yaml"
    output.mkdir(parents=True, exist_ok=True)
    content = {
        "base": "glyphs-5w1s-maml",
        "options": {"steps": arguments.steps, "validation_episodes": arguments.episodes, "test_episodes": 100},
        "space": {key: {"grid": values} for key, values in RATES.items()},
        "report_every": max(1, arguments.steps // 12),
        "scheduler": SCHEDULERS[name],
        "resources": {"workers": 0},
        "concurrent": arguments.concurrent,
    }
    file.write_text(yaml.safe_dump(content))
    summary = run_sweep(new_directory(load_sweep(file), output), mode="plain").summary
    best = summary["best"]
    return {
        "total_steps": summary["total_steps"],
        "counts": summary["counts"],
        "params": best["params"],
        "value": best["value"],
        "ci95": best["ci95"],
        "trials": [{k: t[k] for k in ("config", "status", "step", "value", "ci95")} for t in summary["trials"]],
    }


if __name__ == "__main__":
    sys.exit(main())
