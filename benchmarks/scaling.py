"""Efficiency of Ray workers on this machine, and what a step costs the driver.

    python benchmarks/scaling.py --root FOLDER

Omniglot MAML (strided conv4, meta-batch 32), interleaved: in one process, on one and on two Ray workers, in two
independent processes at once, and on four workers. Then the driver's own time by number of shards and size of the
model, which `benchmarks/scale_model.py` extrapolates.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from record import record

from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.step import take_step
from raymeta.engine.executors.base import Executor
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.executors.placement import PoolOptions
from raymeta.engine.executors.ray_actors import RayExecutor
from raymeta.errors import OutOfMemory
from raymeta.trackers.base import Trackers

WARM_UP = 3


class Loop:
    """The driver's loop over some executor, without files."""

    def __init__(self, preset: str, options: dict[str, Any], workers: int) -> None:
        self.config = load_config(preset=preset, overrides={"steps": 10**6, "compile": False, **options}).config
        built = build(self.config)
        self.blueprint = built.blueprint
        self.state = built.state()
        self.schedule = built.schedule
        self.executor: Executor = (
            RayExecutor(built.blueprint, PoolOptions(workers=workers)) if workers else LocalExecutor(built.blueprint)
        )
        self.steps(WARM_UP)

    def steps(self, count: int) -> tuple[float, float]:
        """Do `count` steps; returns the seconds of one, and those in which the driver did not wait."""
        began, waited = time.perf_counter(), self.executor.waited_s
        driver = Driver(self.state, self.blueprint, self.executor, self.schedule, Trackers([]))
        for _ in range(count):
            take_step(driver, _too_little_memory)
            self.state.step += 1
        seconds = time.perf_counter() - began
        return seconds / count, (seconds - (self.executor.waited_s - waited)) / count


def _too_little_memory(error: OutOfMemory) -> None:
    raise error


class OtherProcess:
    """The same loop in a process of its own, in step with this one: `script` obeys there."""

    def __init__(self, arguments: list[str], script: str = __file__) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments, "--obey"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.answer()

    def order(self, count: int) -> None:
        """Begin some steps."""
        assert self._process.stdin is not None
        print(count, file=self._process.stdin, flush=True)

    def answer(self) -> float:
        """Seconds of a step, when they are done."""
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def obey(loop: Loop) -> None:
    """Be the other end of `OtherProcess`."""
    print(0.0, flush=True)
    for line in sys.stdin:
        print(loop.steps(int(line))[0], flush=True)


def side_by_side(others: Sequence[OtherProcess], count: int) -> float:
    """Mean seconds of a step of processes that each do `count` of their own at once."""
    for other in others:
        other.order(count)
    return statistics.mean(other.answer() for other in others)


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def efficiency(root: str, arguments: list[str], rounds: int, count: int) -> dict[str, Any]:
    """Step times of all ways, interleaved, and the ratios of each round."""
    options = omniglot(root)
    single = Loop("omniglot-5w1s-maml", options, 0)
    pools = {workers: Loop("omniglot-5w1s-maml", options, workers) for workers in (1, 2, 4)}
    others = [OtherProcess(arguments) for _ in range(2)]

    def at_once() -> tuple[float, float]:
        return side_by_side(others, count), 0.0

    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "in process": lambda: single.steps(count),
        "1 worker": lambda: pools[1].steps(count),
        "2 workers": lambda: pools[2].steps(2 * count),
        "2 processes": at_once,
        "4 workers": lambda: pools[4].steps(2 * count),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        order = list(ways)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            seconds, own = ways[name]()
            times[name].append(seconds)
            busy[name].append(own / seconds)
        print(turn, {name: round(values[-1], 3) for name, values in times.items()}, flush=True)
    for other in others:
        other.close()
    for loop in (single, *pools.values()):
        loop.executor.close()
    pairs = zip(times["2 processes"], times["2 workers"], strict=True)
    return {
        "step_s": {name: spread(values) for name, values in times.items()},
        "driver_busy": {name: spread(values) for name, values in busy.items() if "worker" in name},
        # Two processes do two steps in the time of one; two workers share each step.
        "two_workers_over_two_processes": spread([a / 2 / b for a, b in pairs]),
        "one_worker_over_in_process": spread(
            [a / b for a, b in zip(times["in process"], times["1 worker"], strict=True)]
        ),
        "two_workers_over_in_process": spread(
            [a / b for a, b in zip(times["in process"], times["2 workers"], strict=True)]
        ),
    }


def omniglot(root: str) -> dict[str, Any]:
    """The setting of the measurement; the size of a shard is the preset's."""
    return {"tasks.root": root, "meta_batch_size": 32, "shard_size": 16, "validate_every": 0}


def driver_costs(count: int) -> dict[str, Any]:
    """The driver's own seconds a step, and a fit: a + b shards + c shards x bytes + d bytes."""
    rows = []
    for hidden in ([8], [160, 160], [700, 700], [1400, 1400]):
        for shards in (4, 16):
            options = {"model.hidden": hidden, "meta_batch_size": shards, "shard_size": 1, "validate_every": 0}
            loop = Loop("sinusoid-maml", {**options, "algorithm.first_order": True}, 2)
            _, own = loop.steps(count)
            nbytes = loop.blueprint.layout.size * 4
            rows.append({"bytes": nbytes, "shards": shards, "driver_s": own})
            print(rows[-1], flush=True)
            loop.executor.close()
    design = np.array([[1, r["shards"], r["shards"] * r["bytes"], r["bytes"]] for r in rows])
    target = np.array([r["driver_s"] for r in rows])
    weights = 1 / target  # relative errors count
    fit, *_ = np.linalg.lstsq(design * weights[:, None], target * weights, rcond=None)
    return {"rows": rows, "fit": dict(zip(("step", "shard", "shard_byte", "byte"), map(float, fit), strict=True))}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of the Omniglot data")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=12, help="steps of each measurement")
    parser.add_argument("--obey", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    if arguments.obey:
        obey(Loop("omniglot-5w1s-maml", omniglot(arguments.root), 0))
        return 0
    import ray

    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    content = {
        "setting": {k: v for k, v in omniglot("").items() if k != "tasks.root"},
        "efficiency": efficiency(arguments.root, ["--root", arguments.root], arguments.rounds, arguments.steps),
        "driver": driver_costs(arguments.steps),
    }
    ray.shutdown()
    print(json.dumps(content, indent=2))
    record("scaling", content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
