"""How many Omniglot episodes a second one core draws from memory.

    python benchmarks/episodes.py --root FOLDER    # the folder with omniglot_bits.npz

Writes results/benchmarks/episodes.json; fails below the required rate of 5-way 1-shot episodes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

import torch
from record import record

from raymeta.keys import plan
from raymeta.tasks.images.omniglot.task_set import Omniglot

REQUIRED = 5_000  # 5-way 1-shot episodes with one query image per class, in shards of the default size
CASES = [(5, 1, 1), (5, 1, 15), (5, 5, 5), (20, 1, 1)]  # way, shot, query_shot
SHARD_SIZES = (8, 32, 1)  # 8 is the default
REPETITIONS = 9
SECONDS = 0.5  # of each repetition


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder with Omniglot; by default where raymeta looks for it")
    root = parser.parse_args().root
    torch.set_num_threads(1)
    cases = [
        measure(Omniglot(root=root, way=way, shot=shot, query_shot=query_shot), shard_size)
        for way, shot, query_shot in CASES
        for shard_size in SHARD_SIZES
    ]
    for case in cases:
        print(
            "{way:2}-way {shot}-shot, {query_shot:2} query, shards of {shard_size:2}: {median:8.0f} /s".format(**case)
        )
    load = {"load_average": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    enough = cases[0]["median"] >= REQUIRED
    content = {"unit": "episodes per second, one core", "required": REQUIRED, "met": enough, **load, "cases": cases}
    print(f"wrote {record('episodes', content)}")
    if not enough:
        print(f"error: {cases[0]['median']:.0f} episodes/s, required are {REQUIRED}", file=sys.stderr)
    return 0 if enough else 1


def measure(tasks: Omniglot, shard_size: int) -> dict[str, Any]:
    """Rates of several repetitions over training tasks never drawn before."""
    tasks.check()
    rate(tasks, shard_size, seed=0)
    rates = [rate(tasks, shard_size, seed=1 + i) for i in range(REPETITIONS)]
    return {
        **{name: getattr(tasks, name) for name in ("way", "shot", "query_shot", "rotations")},
        "shard_size": shard_size,
        "median": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "repetitions": len(rates),
    }


def rate(tasks: Omniglot, shard_size: int, seed: int) -> float:
    """Episodes per second as a worker draws them: a shard at a time."""
    num_drawn, step = 0, 0
    start = time.perf_counter()
    while time.perf_counter() < start + SECONDS:
        for shard in plan(seed=seed, split="train", step=step, num_tasks=64, shard_size=shard_size):
            tasks.episodes(list(shard.keys()))
        num_drawn, step = num_drawn + 64, step + 1
    return num_drawn / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
