"""Which path is faster where, the measurements behind `vectorize: auto`: python benchmarks/paths.py

Meta-gradients of MAML on networks with more and more to do for each task, tasks side by side and one after another in
turn, as they are and compiled. Writes results/benchmarks/paths.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import torch
from record import record

from raymeta.algorithms.maml import MAML
from raymeta.bench.__main__ import one_core
from raymeta.bench.case import Case
from raymeta.bench.cases import CASES
from raymeta.bench.measure import measure
from raymeta.engine.worker.vectorize import largest_convolution
from raymeta.models.conv4 import Conv4
from raymeta.models.mlp import MLP

PATHS = {path: f"raymeta {path}" for path in ("vmap", "loop", "vmap, compiled", "loop, compiled")}


def cases() -> list[Case]:
    """From no convolution at all to large images."""
    small, large = CASES["omniglot-maml"], CASES["pooled-maml"]
    thin = Conv4(width=32, downsample="pool", pooling="flatten")
    return [
        replace(small, name="mlp, 10 examples", model=MLP(hidden=(256, 128, 64, 64))),
        replace(small, name="strided, 10 examples"),
        replace(small, name="strided, 25 examples", shot=4, num_tasks=16),
        replace(small, name="strided, 40 examples", way=20, num_tasks=8),
        replace(small, name="strided, 80 examples", query_shot=15, num_tasks=8),
        replace(large, name="pooled, 10 examples", query_shot=1, num_tasks=8),
        replace(large, name="pooled, 30 examples", query_shot=5, num_tasks=8),
        replace(large, name="pooled, 80 examples", num_tasks=4),
        replace(large, name="32 channels at 84 x 84, 10 examples", model=thin, input_shape=(3, 84, 84), query_shot=1),
    ]


def row(case: Case, rounds: int) -> dict[str, Any]:
    device = torch.device("cpu")
    case = replace(case, algorithm=MAML(inner_lr=0.01))
    result = measure(case, device, rounds=rounds, paths=list(PATHS.values()), memory=False)
    rates = {found["path"]: found["tasks_per_s"] for found in result["rows"]}
    examples = case.way * (case.shot + case.query_shot)
    return {
        "case": case.name,
        "values": largest_convolution(case.module(), torch.zeros(2, *case.input_shape)) * examples,
        "tasks_per_s": {path: rates[name] for path, name in PATHS.items()},
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="times that each path is measured in turn [7]")
    arguments = parser.parse_args()
    rows = []
    with one_core():
        for case in cases():
            rows.append(row(case, arguments.rounds))
            found = rows[-1]
            speeds = "  ".join(f"{path} {rate['median']:8.1f}" for path, rate in found["tasks_per_s"].items())
            print(f"{case.name:36} {found['values']:>10,}  {speeds}", flush=True)
    print(record("paths", {"rounds": arguments.rounds, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
