"""How long the first call of a compiled shard takes: kernels built one by one as torch does it, built together, cached.

    python benchmarks/compile_times.py

Each measurement is a process of its own; cold ones have an empty cache. All three are measured in turn, so that a ratio
is of one round. Writes results/benchmarks/compile-times.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from record import record, spread

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sinusoid-maml": ("sinusoid-maml", {}),
    "conv4-64 strided, 1 inner step": ("glyphs-5w1s-maml", {"model.width": 64, "algorithm.inner_steps": 1}),
}
WAYS = ("one by one", "together", "cached")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(first_call_s(*arguments.child))
        return 0
    rows = [row(case, list(rounds(case, arguments.rounds))) for case in CASES]
    print(f"wrote {record('compile-times', {'unit': 'seconds', 'rounds': arguments.rounds, 'cases': rows})}")
    return 0


def rounds(case: str, number: int) -> Iterator[dict[str, float]]:
    for _ in range(number):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as both:
            caches = dict(zip(WAYS, (one, both, both), strict=True))
            yield {way: _in_a_process(case, way, cache) for way, cache in caches.items()}


def _in_a_process(case: str, way: str, cache: str) -> float:
    command = [sys.executable, __file__, "--child", case, way]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds: float = json.loads(found.stdout.splitlines()[-1])
    return seconds


def first_call_s(case: str, way: str) -> float:
    """Seconds that compiling the gradient of a shard takes, its first call included."""
    from raymeta.config.build import build
    from raymeta.config.load import load_config
    from raymeta.engine.executors.local import LocalExecutor
    from raymeta.engine.job import Job
    from raymeta.engine.worker import compiled
    from raymeta.keys import Shard

    compiling: Any = compiled
    if way == "one by one":
        compiling.built_together = nullcontext
    preset, options = CASES[case]
    built = build(load_config(preset=preset, overrides={**options, "compile": True, "device": "cpu"}).config)
    executor = LocalExecutor(built.blueprint, lambda *_, **__: None)
    shard = Shard(0, "train", 0, 0, built.schedule.shard_size)
    ((_, result),) = executor.map(Job("gradient"), built.blueprint.payload(built.initial), [shard])
    return result.compile_s


def row(case: str, found: list[dict[str, float]]) -> dict[str, Any]:
    """What is written of one case, and printed."""
    ratios = [one["one by one"] / one["together"] for one in found]
    seconds = {way: spread([one[way] for one in found]) for way in WAYS}
    print(case, ", ".join(f"{way} {spread['median']:.1f} s" for way, spread in seconds.items()), flush=True)
    return {"case": case, "first_call_s": seconds, "one_by_one_over_together": spread(ratios)}


if __name__ == "__main__":
    sys.exit(main())
