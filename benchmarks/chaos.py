"""Train while workers, nodes, the driver and the head are killed, stopped, cut off and joined; compare the bits.

    python benchmarks/chaos.py --root FOLDER                           # Omniglot, 10 minutes, 60 faults
    python benchmarks/chaos.py --tasks sinusoid --minutes 0.5 --faults 8   # a short one, without data

A simulated cluster on this machine: a head without CPUs, three nodes with two each, four workers. Every few seconds
something happens to it, in an order drawn from --seed. Then the same number of steps is computed in one process, and
both parameters are compared. The result file has the recovery time of every kind of fault: from the fault to the end
of the next step that was not done before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from record import record

from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.runs.read import Run
from raymeta.system.files import write_json
from raymeta.tree import params_sha256

NODES, CPUS, WORKERS = 3, 2, 4
CHECKPOINT_EVERY = 20
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    # A silent node counts as dead after 9 s instead of 65 s, a silent head after 10 s instead of 60 s.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}
WEIGHTS = {
    "worker killed": 9,
    "worker frozen for good": 6,
    "worker frozen for 3 s": 6,
    "worker raises": 6,
    "node lost": 12,
    "node cut off for 3 s": 5,
    "node cut off for good": 5,
    "node joins": 5,
    "node preempted": 5,
    "driver killed": 5,
    "head killed": 4,
}
"""Kinds of fault, and how many of each there are in 68; a lost result has no kind, it comes with lost nodes."""
PRESETS = {
    "omniglot": ("omniglot-5w1s-maml", "chaos_driver:ChaosOmniglot", ["meta_batch_size=32", "shard_size=4"]),
    "sinusoid": ("sinusoid-maml", "chaos_driver:ChaosSinusoid", ["model.hidden=[160,160]", "shard_size=2"]),
}


class Chaos:
    """The cluster, the training on it, and what can be done to both."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._folder = folder
        self._random = random.Random(arguments.seed)
        preset, tasks, options = PRESETS[arguments.tasks]
        root = [f"tasks.root={arguments.root}"] if arguments.root else []
        self._options = [
            *(preset, f"tasks={tasks}", *options, *root, "steps=1000000", "validate_every=0", "test_episodes=8"),
            "compile=false",
            *(f"checkpoint_every={CHECKPOINT_EVERY}", f"workers={WORKERS}", "min_workers=1", "shard_timeout=15"),
            *("aggregate=node", "placement=spread", f"output={folder / 'runs'}"),
        ]
        self.steps_log = folder / "steps.log"
        self.unplanned: list[str] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._start_cluster()
        self._start_driver()

    # The cluster

    def _start_cluster(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes = [self._cluster.add_node(num_cpus=CPUS) for _ in range(NODES)]

    def _start_driver(self) -> None:
        runs = sorted((self._folder / "runs").glob("*/config.yaml"))
        place = [f"address={self._cluster.address}"]
        arguments = ["--resume", str(runs[0].parent), "-", *place] if runs else [*self._options, *place]
        script = Path(__file__).with_name("chaos_driver.py")
        with open(self._folder / "driver.log", "ab") as log:
            command = [sys.executable, str(script), str(self._folder), *arguments]
            self._driver = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def run(self) -> Run:
        """The run directory, once there is one."""
        (path,) = (self._folder / "runs").glob("*/run.json")
        return Run.open(path.parent)

    def steps(self) -> list[tuple[float, int]]:
        """Time and number of every step done so far."""
        if not self.steps_log.exists():
            return []
        lines = self.steps_log.read_text().splitlines()
        return [(float(when), int(step)) for when, step in (line.split() for line in lines if line.count(" ") == 1)]

    def wait_for_step_after(self, step: int, seconds: float) -> float | None:
        """When a step beyond `step` was done; None if `seconds` were not enough."""
        deadline = time.time() + seconds
        while time.time() < deadline:
            for when, done in self.steps()[-50:]:
                if done > step:
                    return when
            self.tend()
            time.sleep(0.05)
        return None

    def tend(self) -> None:
        """Do what was put off, and start the driver again if it is gone."""
        now = time.time()
        due = [action for when, action in self._later if when <= now]
        self._later = [(when, action) for when, action in self._later if when > now]
        for action in due:
            action()
        if self._driver.poll() is not None:
            self.unplanned.append(f"driver ended with {self._driver.returncode}")
            if not self.steps():
                raise SystemExit((self._folder / "driver.log").read_text())
            self._start_driver()

    def stop(self) -> int:
        """Stop the training as Ctrl-C would; returns its exit code."""
        self._driver.send_signal(signal.SIGINT)
        return self._driver.wait(120)

    def close(self) -> None:
        """End all processes."""
        self._driver.kill()
        self._driver.wait()
        for node in self._nodes:
            _signal_all(_tree(_raylet(node)), signal.SIGCONT)
        self._cluster.shutdown()

    # What can happen

    def inflict(self, kind: str) -> None:
        """Let it happen."""
        worker = self._random.choice(self._workers() or [0])
        match kind:
            case "worker killed" if worker:
                _signal_all([worker], signal.SIGKILL)
            case "worker frozen for good" if worker:
                _signal_all([worker], signal.SIGSTOP)
            case "worker frozen for 3 s" if worker:
                _signal_all([worker], signal.SIGSTOP)
                self._put_off(3, lambda: _signal_all([worker], signal.SIGCONT))
            case "worker raises":
                (self._folder / "raise").touch()
            case "node lost":
                self._lose(self._some_node(), graceful=False)
                self._put_off(2, self._join)
            case "node cut off for 3 s" | "node cut off for good":
                self._cut_off(self._some_node(), for_good=kind.endswith("good"))
            case "node joins":
                self._join()
            case "node preempted":
                self._preempt(self._some_node())
            case "driver killed":
                self._driver.kill()
                self._driver.wait()
                self._start_driver()
            case "head killed":
                self._kill_head()
            case _:
                self.unplanned.append(f"nobody to have it: {kind}")

    def _workers(self) -> list[int]:
        children = [child for node in self._nodes for child in _tree(_raylet(node))]
        return [pid for pid in children if _command(pid).startswith("ray::ActorWorker")]

    def _some_node(self) -> Any:
        return self._random.choice(self._nodes)

    def _put_off(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((time.time() + seconds, action))

    def _lose(self, node: Any, *, graceful: bool) -> None:
        if node in self._nodes:
            self._nodes.remove(node)
            self._cluster.remove_node(node, allow_graceful=graceful)

    def _join(self) -> None:
        if len(self._nodes) < NODES + 1:
            self._nodes.append(self._cluster.add_node(num_cpus=CPUS))

    def _cut_off(self, node: Any, *, for_good: bool) -> None:
        """A network that is gone looks like a node and all on it that have stopped."""
        processes = [_raylet(node), *_tree(_raylet(node))]
        _signal_all(processes, signal.SIGSTOP)

        def reconnect() -> None:
            _signal_all(processes, signal.SIGCONT)
            if for_good:  # Ray has given it up and its raylet will end; the machine comes back with a new one
                self._lose(node, graceful=False)
                self._join()

        self._put_off(14 if for_good else 3, reconnect)

    def _preempt(self, node: Any) -> None:
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self._cluster.address),
            *("--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
            *("--reason-message", "spot", "--deadline-remaining-seconds", "8"),
        ]
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def take_away() -> None:
            self._lose(node, graceful=True)
            self._join()

        self._put_off(8, take_away)

    def _kill_head(self) -> None:
        """The head and its store are gone, and with them the cluster: all starts anew, the training is resumed."""
        self._later.clear()
        gcs = self._cluster.head_node.all_processes["gcs_server"][0].process.pid
        _signal_all([gcs], signal.SIGKILL)
        try:
            self._driver.wait(30)
        except subprocess.TimeoutExpired:
            self.unplanned.append("driver did not end within 30 s of its head's end")
            self._driver.kill()
            self._driver.wait()
        for node in self._nodes:
            _signal_all(_tree(_raylet(node)), signal.SIGCONT)
        self._cluster.shutdown()
        self._start_cluster()
        self._start_driver()


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _tree(root: int) -> list[int]:
    """All processes below `root`."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))

    def below(pid: int) -> Iterator[int]:
        for child in children.get(pid, []):
            yield child
            yield from below(child)

    return list(below(root))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _signal_all(processes: list[int], number: signal.Signals) -> None:
    for pid in processes:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def schedule(faults: int, seed: int) -> list[str]:
    """Which kind comes when: whole rounds of all kinds by weight, shuffled."""
    drawn = random.Random(seed)
    total = sum(WEIGHTS.values())
    counts = {kind: max(1, round(weight * faults / total)) for kind, weight in WEIGHTS.items()}
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    drawn.shuffle(kinds)
    return kinds[:faults] if faults < len(WEIGHTS) else kinds


def disturb(chaos: Chaos, kinds: list[str], seconds: float) -> list[dict[str, Any]]:
    """Let everything in `kinds` happen, spread over `seconds`; returns each fault with its recovery time."""
    began = time.time()
    if chaos.wait_for_step_after(CHECKPOINT_EVERY, 180) is None:
        raise SystemExit("the training did not begin within 180 s: see driver.log")
    faults = []
    for position, kind in enumerate(kinds):
        while time.time() < began + seconds * position / len(kinds):
            chaos.tend()
            time.sleep(0.1)
        when = time.time()
        chaos.inflict(kind)  # returns when the driver has ended, where it has to
        furthest = max(step for _, step in chaos.steps())
        after = chaos.wait_for_step_after(furthest, 180)
        faults.append({"kind": kind, "at_s": when - began, "recovery_s": None if after is None else after - when})
        next_step = "no step for 180 s" if after is None else f"next after {after - when:5.1f} s"
        print(f"{when - began:6.1f} s  {kind:24}  step {furthest:5}  {next_step}", flush=True)
        if after is None:
            break
    while time.time() < began + seconds:
        chaos.tend()
        time.sleep(0.1)
    return faults


def lost_steps(steps: list[tuple[float, int]]) -> tuple[list[int], list[int]]:
    """Steps that were left out (there should be none), and how many each resumption computed again."""
    left_out, again, furthest = [], [], 0
    for (_, before), (_, step) in pairwise(steps):
        furthest = max(furthest, before)
        if step <= before:
            again.append(furthest + 1 - step)
        elif step != before + 1:
            left_out.append(step)
    return left_out, again


def undisturbed(run: Run, steps: int, folder: Path) -> str:
    """SHA-256 of the parameters that one process computes in as many steps of the same configuration."""
    from raymeta.api.train import meta_train

    alone = {"workers": 0, "aggregate": "flat", "placement": "pack", "address": None, "shard_timeout": None}
    output = str(folder / "undisturbed")
    options = {**alone, "min_workers": None, "steps": steps, "checkpoint_every": steps, "output": output}
    done = meta_train(file=run.path / "config.yaml", trust=True, **options)
    return str((done.summary or {})["params_sha256"])


def table(faults: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Recovery times by kind."""
    rows = {}
    for kind in WEIGHTS:
        times = [f["recovery_s"] for f in faults if f["kind"] == kind and f["recovery_s"] is not None]
        if times:
            rows[kind] = {"faults": len(times), "median_s": statistics.median(times), "worst_s": max(times)}
    return rows


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", choices=PRESETS, default="omniglot")
    parser.add_argument("--root", help="folder of the Omniglot data")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--faults", type=int, default=68)
    parser.add_argument("--kinds", nargs="*", choices=WEIGHTS, help="only these, one after the other, once each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true", help="write no result file")
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="only compare what an earlier command left")
    arguments = parser.parse_args()
    if arguments.compare:
        sys.path.insert(0, str(Path(__file__).parent.resolve()))
        return compare(arguments.compare, arguments)
    folder = Path(tempfile.mkdtemp(prefix="raymeta-chaos-"))
    here = str(Path(__file__).parent.resolve())
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ.update({**ENVIRONMENT, "RAYMETA_CHAOS": str(folder), "PYTHONPATH": path})
    kinds = arguments.kinds or schedule(arguments.faults, arguments.seed)
    chaos = Chaos(arguments, folder)
    try:
        faults = disturb(chaos, kinds, 60 * arguments.minutes)
        code = chaos.stop()
    finally:
        chaos.close()
    run, steps = chaos.run, chaos.steps()
    checkpoint, _ = CheckpointStore(run.path / "checkpoints").load_last()
    assert checkpoint is not None
    content = {
        "steps": checkpoint.step,
        "exit_code": code,
        "faults": len(faults),
        "recovered": sum(f["recovery_s"] is not None for f in faults),
        "recovery": table(faults),
        "usual_step_s": statistics.median(b - a for (a, _), (b, _) in pairwise(steps)),
        "unplanned": chaos.unplanned,
        "events": _count_events(run),
    }
    content["steps_lost"], content["steps_computed_again_on_resume"] = lost_steps(steps)
    content["params_sha256"] = params_sha256(checkpoint.learned.params)
    write_json(folder / "content.json", content)
    return compare(folder, arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> int:
    """Compute the same steps undisturbed, and record what was found; `folder` is what a disturbed training left."""
    content = json.loads((folder / "content.json").read_text())
    (path,) = (folder / "runs").glob("*/run.json")
    os.environ["RAYMETA_CHAOS"] = str(folder)
    content["undisturbed_sha256"] = undisturbed(Run.open(path.parent), content["steps"], folder)
    content["equal"] = content["params_sha256"] == content["undisturbed_sha256"]
    good = content["equal"] and not content["steps_lost"] and content["exit_code"] == 130
    good = good and content["recovered"] == content["faults"]
    good = good and all(again <= CHECKPOINT_EVERY for again in content["steps_computed_again_on_resume"])
    print(json.dumps(content, indent=2))
    if not arguments.no_record:
        record(f"chaos-{arguments.tasks}", content)
    print("everything recovered, and the bits are equal" if good else f"NOT as it should be: see {folder}")
    return 0 if good else 1


def _count_events(run: Run) -> dict[str, int]:
    kinds = [event["kind"] for event in run.events()]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


if __name__ == "__main__":
    sys.exit(main())
