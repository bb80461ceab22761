"""What it saves that a worker keeps the memory it frees, and what it costs: python benchmarks/kept_memory.py

Shards of bench cases, side by side and one after another, each in a process of its own with and without, in turns, on
one thread. Writes results/benchmarks/kept-memory.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
from record import record, spread

from raymeta.bench.cases import CASES
from raymeta.bench.measure import resident_peak
from raymeta.bench.ours import ours
from raymeta.system.kept_memory import kept_memory

MEASURED = [
    ("omniglot-maml", "vmap"),
    ("omniglot-maml", "loop"),
    ("omniglot-anil", "vmap"),
    ("omniglot-protonet", "vmap"),
    ("omniglot-protonet", "loop"),
    ("sinusoid-maml", "vmap"),
]
LEAST_S = 1.5
"""Seconds of one measurement at least."""


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind [5]")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(*json.loads(arguments.one))))
        return 0
    rows = [row(case, path, arguments.rounds) for case, path in MEASURED]
    print(record("kept-memory", {"rounds": arguments.rounds, "rows": rows}))
    return 0


def row(case: str, path: str, rounds: int) -> dict[str, Any]:
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for turn in range(rounds):
        for kept in (False, True) if turn % 2 else (True, False):
            found[kept].append(in_a_process(case, path, kept))
    of = {kept: {name: spread([one[name] for one in found[kept]]) for name in found[kept][0]} for kept in found}
    ratio = [new["tasks_per_s"] / old["tasks_per_s"] for new, old in zip(found[True], found[False], strict=True)]
    print(f"{case:20} {path:5} {spread(ratio)['median']:.2f} times the rate", flush=True)
    return {"case": case, "path": path, "given_back": of[False], "kept": of[True], "rate_ratio": spread(ratio)}


def in_a_process(case: str, path: str, kept: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", json.dumps([case, path, kept])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(name: str, path: str, kept: bool) -> dict[str, float]:
    torch.set_num_threads(1)
    with kept_memory() if kept else nullcontext():
        run = ours(CASES[name], path, torch.device("cpu"))
        before = resident_peak()
        for _ in range(2):
            run()
        calls, faults, began = 0, page_faults(), time.perf_counter()
        while time.perf_counter() - began < LEAST_S:
            run()
            calls += 1
        tasks = calls * CASES[name].num_tasks
        return {
            "tasks_per_s": tasks / (time.perf_counter() - began),
            "page_faults_per_task": (page_faults() - faults) / tasks,
            "peak_memory_mb": (resident_peak() - before) / 1e6,
        }


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    sys.exit(main())
