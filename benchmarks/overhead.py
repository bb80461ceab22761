"""What a run in one process costs besides the meta-gradient: rates of the two, and their ratio.

    python benchmarks/overhead.py

For each case in turn, on one core and thread: the meta-gradient alone, called again and again on the same episodes, and
a whole training loop from its first step to its last (of the compiled sinusoid, all 70,000 of its preset): episodes,
driver, outer step, files and checkpoints, without validation. A third side is the meta-gradient alone at the pace of
the run: before each call, the processor counts time for as long as the run spends on other things, which is not
measured; it shows how much slower the same code is on a machine whose caches others use meanwhile.
Writes results/benchmarks/overhead.json; `--output` names another file.
Fails below the required ratio of the first two.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import record, spread

from raymeta.adaptation.problem import Phase
from raymeta.algorithms.base import TASK_GRADIENT
from raymeta.autodiff.failures import exact_attention
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.loop import train_loop
from raymeta.engine.driver.profile import TABLE, Profile
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.stopwatch import PHASES
from raymeta.engine.worker.shard_function import Asked, ShardFunction
from raymeta.keys import TaskKey
from raymeta.runs.write import RunWriter
from raymeta.system.files import json_text
from raymeta.system.outputs import write_output
from raymeta.trackers.base import Trackers
from raymeta.trackers.tensorboard import TensorBoard
from raymeta.trackers.terminal import open_terminal

REQUIRED = 0.5


class Case(NamedTuple):
    """A configuration, how many steps a run of it has, and how often the meta-gradient is called alone."""

    preset: str
    options: dict[str, Any]
    steps: int
    calls: int


_ONE_SHARD = {"validate_every": 0, "device": "cpu"}
_GLYPHS = {
    "meta_batch_size": 32, "shard_size": 32, "model.width": 64, "tasks.query_shot": 1, "algorithm.test_inner_steps": 1
}  # fmt: skip
CASES = {
    "sinusoid-maml, compiled": Case("sinusoid-maml", {**_ONE_SHARD, "shard_size": 25, "compile": True}, 70_000, 20_000),
    "sinusoid-maml, vmap": Case("sinusoid-maml", {**_ONE_SHARD, "shard_size": 25}, 500, 500),
    "glyphs conv4-64, vmap": Case("glyphs-5w1s-maml", {**_ONE_SHARD, **_GLYPHS}, 6, 6),
}


class Measured:
    """One case, ready to be measured again and again; compiled, both sides once."""

    def __init__(self, case: Case) -> None:
        self._config = load_config(preset=case.preset, overrides={**case.options, "steps": case.steps}).config
        self._built = build(self._config)
        self._steps, self._calls, self.tasks = case.steps, case.calls, self._config.meta_batch_size
        self._executor = LocalExecutor(self._built.blueprint)
        self._gradient = self._bare()
        self.alone_s(2)
        self.run(2)

    def _bare(self) -> Any:
        blueprint, initial = self._built.blueprint, self._built.initial
        problem = blueprint.problem()
        function = ShardFunction(
            blueprint.algorithm, problem, blueprint.layout, blueprint.state_layout, compiled=blueprint.compiled
        )
        episodes = blueprint.tasks.episodes([TaskKey(0, "train", 0, i) for i in range(self.tasks)])
        phase = Phase(way=problem.way_of(episodes))
        return lambda: function(initial, Asked(TASK_GRADIENT, episodes, {}, phase))

    def alone_s(self, calls: int | None = None) -> float:
        """Seconds of a meta-gradient of the whole meta-batch, alone."""
        calls = calls or self._calls
        with exact_attention():
            began = time.perf_counter()
            for _ in range(calls):
                self._gradient()
            return (time.perf_counter() - began) / calls

    def paced_s(self, pause_s: float) -> float:
        """The same with a pause before each call, in which the processor only counts time."""
        seconds = 0.0
        with exact_attention():
            for _ in range(self._calls):
                until = time.perf_counter() + pause_s
                while (began := time.perf_counter()) < until:
                    pass
                self._gradient()
                seconds += time.perf_counter() - began
        return seconds / self._calls

    def run(self, steps: int | None = None) -> float:
        """Seconds of a step of a run of so many, with all it writes."""
        with tempfile.TemporaryDirectory() as folder:
            return self._run(steps or self._steps, Path(folder), None)

    def phases(self) -> dict[str, float]:
        """Seconds of the phases of a step, from a run that watches itself."""
        with tempfile.TemporaryDirectory() as folder:
            self._run(self._steps, Path(folder), Profile(Path(folder), traced_steps=0, num_workers=0))
            seconds: dict[str, float] = json.loads((Path(folder) / TABLE).read_text())["phases_s"]
            return seconds

    def _run(self, steps: int, directory: Path, profile: Profile | None) -> float:
        schedule = replace(self._built.schedule, steps=steps)
        terminal = open_terminal("plain", quiet=False, title="overhead", steps=steps, stream=io.StringIO())
        writer = RunWriter(directory, steps=steps)
        tracker = Trackers([writer, TensorBoard(directory / "tb"), terminal])
        began = time.perf_counter()
        driver = Driver(self._built.state(), self._built.blueprint, self._executor, schedule, tracker)
        train_loop(driver, CheckpointStore(directory / "checkpoints"), profile=profile)
        seconds = (time.perf_counter() - began) / steps
        writer.finish("finished")
        tracker.close()
        return seconds


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Both rates by round, in turn, and their ratio."""
    measured = Measured(case)
    alone: list[float] = []
    runs: list[float] = []
    paced: list[float] = []
    for turn in range(rounds):
        for side in (alone, runs) if turn % 2 else (runs, alone):
            side.append(measured.alone_s() if side is alone else measured.run())
        paced.append(measured.paced_s(max(0.0, runs[-1] - alone[-1])))
    rates = {
        "alone_tasks_per_s": [measured.tasks / s for s in alone],
        "paced_tasks_per_s": [measured.tasks / s for s in paced],
        "run_tasks_per_s": [measured.tasks / s for s in runs],
        "ratio": [one / whole for one, whole in zip(alone, runs, strict=True)],
        "paced_ratio": [one / whole for one, whole in zip(paced, runs, strict=True)],
    }
    return {
        "steps": case.steps,
        "tasks_per_step": measured.tasks,
        **{name: spread(values) for name, values in rates.items()},
        "phases_s": {name: seconds for name, seconds in measured.phases().items() if name in PHASES},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="times that both sides are measured in turn [9]")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="[all]")
    parser.add_argument("--output", type=Path, help="write this file, and record nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cases = {}
    for name in arguments.cases:
        cases[name] = measure(CASES[name], arguments.rounds)
        ratio, paced = cases[name]["ratio"], cases[name]["paced_ratio"]
        alone, run = (cases[name][f"{side}_tasks_per_s"] for side in ("alone", "run"))
        print(
            f"{name:26} alone {alone['median']:8,.0f} tasks/s, run {run['median']:8,.0f} tasks/s, "
            f"ratio {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f}), "
            f"at the run's pace {paced['median']:.2f} ({paced['least']:.2f} to {paced['most']:.2f})",
            flush=True,
        )
    met = all(case["ratio"]["median"] >= REQUIRED for case in cases.values())
    load = {"load_average": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    content = {"required": REQUIRED, "met": met, "rounds": arguments.rounds, **load, "cases": cases}
    if arguments.output:
        write_output(arguments.output, json_text(content, indent=2) + "\n", "--output")
    else:
        print(f"wrote {record('overhead', content)}")
    if not met:
        print(f"error: a run has less than {REQUIRED} of the rate of its meta-gradients", file=sys.stderr)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
