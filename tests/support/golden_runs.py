"""Runs between commits: the first presets after 20 steps, by version of torch and kind of CPU.

`python tests/support/golden_runs.py` records this machine's in `golden_runs.json`; where a commit is meant to change
bits, it says so and records them again.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

import raymeta

FILE = Path(__file__).with_suffix(".json")
STEPS = 20
PRESETS = (
    "glyphs-5w1s-maml", "omniglot-20w1s-maml", "omniglot-5w1s-anil", "omniglot-5w1s-maml", "omniglot-5w1s-meta-sgd",
    "omniglot-5w1s-protonet", "omniglot-5w1s-reptile", "sinusoid-maml",
)  # fmt: skip
OPTIONS: dict[str, Any] = {"steps": STEPS, "validate_every": 0, "test_episodes": 8, "threads_per_worker": 1}


def machine() -> str:
    """What bits depend on besides the code."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"torch {torch.__version__}, {model}, {torch.backends.cpu.get_cpu_capability()}"


def outcome(preset: str, folder: Path, omniglot: str | None, **options: Any) -> dict[str, Any]:
    """The hash of the parameters, and a sum and a sum of squares of each, which other machines come close to."""
    data = {"tasks.root": omniglot} if preset.startswith("omniglot") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = raymeta.meta_train(preset, output=str(folder), **{**OPTIONS, **data, **options})
    params = dict(raymeta.load_run(run.path).model().named_parameters())
    values = {
        n: [float(p.detach().double().sum()), float(p.detach().double().square().sum())] for n, p in params.items()
    }
    return {"params_sha256": run.summary["params_sha256"], "values": values}


def recorded() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {preset: outcome(preset, Path(folder), sys.argv[1]) for preset in PRESETS}
    known = recorded() if FILE.exists() else {}
    FILE.write_text(json.dumps(known | {machine(): found}, indent=1, sort_keys=True) + "\n")
