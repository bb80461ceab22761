"""How near a process that was learned comes to the exact posterior: PFN, CNP and NP on a Gaussian process.

    python benchmarks/posterior.py --steps 28000      # over which rates fall; at most --seconds of training

Each trains on functions of one fixed kernel. Then, with 1 to 20 context points, the negative log likelihood of new
points is compared with that of the exact posterior of the same tasks, on average the least that is possible. Writes
results/benchmarks/posterior.json; fails unless the PFN is within 0.05 nats in the mean over the numbers of points.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
import warnings
from typing import Any

import numpy as np
from record import record

import raymeta
from raymeta.api.evaluate import TEST_SEED
from raymeta.config.load import load_config
from raymeta.keys import TaskKey
from raymeta.tasks import GaussianProcess
from raymeta.tasks.gaussian_process import exact
from raymeta.trackers.scores import half_width, paired

POINTS = (1, 2, 3, 5, 8, 12, 16, 20)
TASKS, LEVEL = 256, 0.05
PRESETS = {"pfn": "gp-pfn", "cnp": "gp-cnp", "np": "gp-np"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800, help="of training, for each method [1800]")
    parser.add_argument("--steps", type=int, help="outer steps in place of the preset's, over which rates fall")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=PRESETS, default=["pfn"])
    arguments = parser.parse_args()
    tasks = load_config(preset="gp-pfn").config.tasks
    assert isinstance(tasks, GaussianProcess)
    least = {points: of_posterior(dataclasses.replace(tasks, shot=points)) for points in POINTS}
    table = {}
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that the presets' switches drop
        for name in arguments.methods:
            table[name] = of_method(name, tasks, least, arguments, place)
            gaps = [point["gap"] for point in table[name]["points"].values()]
            print(f"{name}: {np.mean(gaps):.4f} nats above the posterior, worst {max(gaps):.4f}", flush=True)
    met = "pfn" not in table or bool(table["pfn"]["gap"] <= LEVEL)
    content = {"unit": "negative log likelihood of a point, in nats", "tasks": TASKS, "level": LEVEL, "methods": table}
    content |= {"posterior": {points: values.mean() for points, values in least.items()}, "met": met}
    print(f"wrote {record('posterior', content)}")
    return 0 if met else 1


def of_posterior(tasks: GaussianProcess) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The negative log likelihood of each test task under its exact posterior [TASKS]."""
    keys = [TaskKey(TEST_SEED, "test", 0, index) for index in range(TASKS)]
    return np.array([float(exact(tasks.kernel(key), tasks.episode(key)).mean()) for key in keys])


def of_method(
    name: str, tasks: GaussianProcess, least: dict[int, Any], arguments: argparse.Namespace, place: str
) -> dict[str, Any]:
    """Training, and the distance to the posterior by the number of points."""
    options: dict[str, Any] = {
        "preset": PRESETS[name],
        "tasks": tasks,
        "workers": arguments.workers,
        "validate_every": 0,
    }
    options |= {"time_limit": f"{arguments.seconds:g}s", "test_episodes": 8, "device": "cpu", "output": place}
    options |= {} if arguments.steps is None else {"steps": arguments.steps}
    began = time.perf_counter()
    run = raymeta.meta_train(**options)
    seconds, points = time.perf_counter() - began, {}
    for number, exactly in least.items():
        found = raymeta.meta_test(run, episodes=TASKS, **{"tasks.shot": number}).scores.main[:, -1]
        gap, half = paired(exactly, found)
        points[number] = {"nll": found.mean(), "ci95": half_width(found), "gap": gap, "gap_ci95": half}
    mean = float(np.mean([point["gap"] for point in points.values()]))
    return {"steps": (run.summary or {})["steps"], "seconds": seconds, "gap": mean, "points": points}


if __name__ == "__main__":
    sys.exit(main())
