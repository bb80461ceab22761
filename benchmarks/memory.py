"""What checkpointed inner steps save in memory and cost in time, with equal bits.

    python benchmarks/memory.py

Omniglot's strided conv4-64, 5-way 1-shot with 1 query per class, second-order MAML, one thread. Memory is that of a
process of its own for each case, time is taken in turns in one process. Writes results/benchmarks/memory.json; fails
where a requirement is not met.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from record import record, spread

from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.maml import MAML
from raymeta.bench.case import Case
from raymeta.models.conv4 import Conv4
from raymeta.system.kept_memory import kept_memory
from raymeta.tree import Params

MEMORY_RATIO, TIME_RATIO = 1 / 3, 1.7  # required of 20 steps, with checkpoints over without
LONG_BYTES = 2e9  # required of the whole process with 50 steps, Python and torch included
CASES = [(5, 8, False), (5, 8, True), (10, 8, False), (10, 8, True), (20, 8, False), (20, 8, True), (50, 16, True)]
TIMED = (20, 8)  # inner steps, tasks of a shard
ROUNDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"times that each is timed in turn [{ROUNDS}]")
    parser.add_argument("--no-record", action="store_true", help="only print what was measured")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        with kept_memory():  # as workers do
            print(json.dumps(measure(*json.loads(arguments.one))))
        return 0
    cases = [in_a_process(*case) for case in CASES]
    with kept_memory():
        times = timed(*TIMED, rounds=arguments.rounds)
    content = {"cases": cases, "time": times, **judged(cases, times)}
    print(json.dumps({name: content[name] for name in ("time", "required", "found", "met")}, indent=2))
    if not arguments.no_record:
        print(f"wrote {record('memory', content)}")
    return 0 if all(content["met"].values()) else 1


def shard(num_steps: int, num_tasks: int, checkpointed: bool) -> Callable[[], Params]:
    """A function that computes a shard's sum of meta-gradients."""
    case = Case(
        name="memory",
        algorithm=MAML(inner_lr=0.01, inner_steps=num_steps),
        model=Conv4(),
        input_shape=(1, 28, 28),
        way=5,
        shot=1,
        query_shot=1,
        num_tasks=num_tasks,
    )
    problem = Problem(case.module(), goal=case.goal, checkpoint_inner_steps=checkpointed)
    learned, episodes = Learned(problem.initial_params(), {}), case.episodes()
    return lambda: case.algorithm.contribution(problem, learned, episodes, noise={}, phase=Phase()).sums


def in_a_process(num_steps: int, num_tasks: int, checkpointed: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", json.dumps([num_steps, num_tasks, checkpointed])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {num_steps} steps of {num_tasks} tasks failed:\n{done.stderr}")
    case: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{num_steps:2} steps, {num_tasks:2} tasks, checkpointed {checkpointed!s:5}: "
        f"{case['shard_bytes'] / 1e6:6.0f} MB beyond {case['idle_bytes'] / 1e6:.0f} MB",
        flush=True,
    )
    return case


def measure(num_steps: int, num_tasks: int, checkpointed: bool) -> dict[str, Any]:
    """Most memory that this process held before and while it computed the shard twice."""
    run = shard(num_steps, num_tasks, checkpointed)
    idle = peak_bytes()
    for _ in range(2):
        gradient = run()
    content = b"".join(value.numpy().tobytes() for value in gradient.values())
    return {
        "inner_steps": num_steps,
        "tasks": num_tasks,
        "checkpointed": checkpointed,
        "idle_bytes": idle,
        "shard_bytes": peak_bytes() - idle,
        "gradient_sha256": hashlib.sha256(content).hexdigest(),
    }


def timed(num_steps: int, num_tasks: int, *, rounds: int) -> dict[str, Any]:
    """Seconds of a shard with and without checkpoints, in turns after a first call of each."""
    runs = {flag: shard(num_steps, num_tasks, flag) for flag in (False, True)}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds + 1):
        for flag in (False, True) if turn % 2 else (True, False):
            began = time.perf_counter()
            runs[flag]()
            if turn:
                seconds[flag].append(time.perf_counter() - began)
    ratios = [new / old for new, old in zip(seconds[True], seconds[False], strict=True)]
    return {
        "inner_steps": num_steps,
        "tasks": num_tasks,
        "plain_s": seconds[False],
        "checkpointed_s": seconds[True],
        "ratio": spread(ratios),
        **({"load_average": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}),
    }


def judged(cases: list[dict[str, Any]], times: dict[str, Any]) -> dict[str, Any]:
    """What is required, what was found, and whether it is met."""
    by = {(case["inner_steps"], case["checkpointed"]): case for case in cases}
    plain, checkpointed, long = by[20, False], by[20, True], by[50, True]
    required = {"memory_ratio_20_steps": MEMORY_RATIO, "time_ratio": TIME_RATIO, "process_bytes_50_steps": LONG_BYTES}
    found = {
        "memory_ratio_20_steps": checkpointed["shard_bytes"] / plain["shard_bytes"],
        "time_ratio": times["ratio"]["median"],
        "process_bytes_50_steps": long["idle_bytes"] + long["shard_bytes"],
    }
    met = {name: found[name] <= most for name, most in required.items()}
    pairs = [(by[k, False], by[k, True]) for k in (5, 10, 20)]
    met["equal_bits"] = all(one["gradient_sha256"] == other["gradient_sha256"] for one, other in pairs)
    return {"required": required, "found": found, "met": met}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
