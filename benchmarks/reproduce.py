"""Train a preset within a time limit on Ray workers, test it, and compare with its published number.

    python benchmarks/reproduce.py omniglot-5w1s-protonet --root FOLDER --time-limit 15m

The result file says how far the run is from the published number; the runs are short on purpose, so the number of
outer steps stands beside the paper's. It holds the score of every test task, from which the interval can be computed
again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import record

from raymeta.api.train import Training
from raymeta.config import yaml_lines
from raymeta.config.load import load_config
from raymeta.runs.read import Run
from raymeta.runs.tables import evaluation
from raymeta.trackers.terminal import open_terminal

PUBLISHED: dict[str, dict[str, Any]] = {
    "sinusoid-maml": {
        "value": None,
        "goal": 0.65,
        "steps": 70000,
        "source": "Finn et al. 2017 plot a curve without a table for K = 10; the goal is ours at 10,000 steps",
    },
    "omniglot-5w1s-maml": {"value": 0.987, "goal": 0.94, "steps": 60000, "source": "Finn et al. 2017, table 1"},
    "omniglot-5w1s-protonet": {"value": 0.988, "goal": 0.97, "steps": None, "source": "Snell et al. 2017, table 1"},
    "omniglot-5w1s-reptile": {
        "value": 0.9768,
        "goal": 0.90,
        "steps": 100000,
        "source": "Nichol et al. 2018 (v3), Reptile + transduction",
    },
}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PUBLISHED)
    parser.add_argument("--root", help="folder of the data, where the preset needs data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="outer steps, in place of the preset's")
    parser.add_argument("--time-limit", help="training time, such as 30m")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="other options")
    parser.add_argument("--output", type=Path, help="folder for the run; a temporary one unless given")
    arguments = parser.parse_args()
    options: dict[str, Any] = {"workers": arguments.workers, "seed": arguments.seed}
    options |= {"output": str(arguments.output or tempfile.mkdtemp(prefix="raymeta-"))}
    for key, value in (
        ("steps", arguments.steps),
        ("time_limit", arguments.time_limit),
        ("tasks.root", arguments.root),
    ):
        if value is not None:
            options[key] = value
    pairs = (text.split("=", 1) for text in arguments.set)
    extra = {key: yaml_lines.scalar(value) for key, value in pairs}
    config = load_config(preset=arguments.preset, overrides={**options, **extra}).config
    training = Training(
        config,
        trackers=lambda title: [open_terminal("plain", quiet=False, title=title, steps=config.steps)],
    )
    run = training.execute()
    path = record(f"{arguments.preset}-seed{arguments.seed}", content(run, arguments.preset, extra, config.time_limit))
    print(path.read_text())
    return 0


def content(run: Run, preset: str, extra: dict[str, object], time_limit_s: float | None) -> dict[str, Any]:
    summary, published = run.summary or {}, PUBLISHED[preset]
    headline = summary["headline"]
    better = 1 if headline["better"] == "higher" else -1
    return {
        "preset": preset,
        "changed_options": extra,
        "seed": run.config["seed"],
        "workers": run.config["workers"],
        "time_limit_s": time_limit_s,
        "summary": summary,
        "values": evaluation(run)["values"],
        "published": published,
        "distance_to_published": None if published["value"] is None else headline["value"] - published["value"],
        "goal_reached": better * (summary["by_inner_step"][1] if preset == "sinusoid-maml" else headline["value"])
        >= better * published["goal"],
        "validation": [
            {key: value for key, value in row.items() if key == "step" or key.startswith("val/")}
            for row in run.metrics()
            if any(key.startswith("val/") for key in row)
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
