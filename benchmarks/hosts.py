"""Train over several hosts: network namespaces with their own addresses, links that are cut, and limited bandwidth.

    sudo python benchmarks/hosts.py cut --root FOLDER       # a link is cut for 3 s, another for good, and restored
    sudo python benchmarks/hosts.py traffic --root FOLDER   # bytes and time of a step, `aggregate: flat` and `node`

Needs Linux, root, and the programs `ip` and `tc` (package iproute2). Host 0 holds the head and the driver; two more
hold two workers each, joined by a bridge. Nothing outside the namespaces is touched, and all goes away at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from chaos import ENVIRONMENT
from record import record

from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.runs.read import Run
from raymeta.tree import params_sha256

BRIDGE = "raymeta0"
HOSTS = 3
PORT = 6399


class Hosts:
    """Namespaces `raymeta0` … with addresses 10.77.0.1 …, and Ray on each. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rays: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Hosts:
        self._remove()
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("link", "set", BRIDGE, "up")
        for host in range(HOSTS):
            _ip("netns", "add", _name(host))
            _ip("link", "add", f"rmv{host}", "type", "veth", "peer", "name", "eth0", "netns", _name(host))
            _ip("link", "set", f"rmv{host}", "master", BRIDGE, "up")
            _ip("-n", _name(host), "addr", "add", f"{_address(host)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", _name(host), "link", "set", device, "up")
        for host in range(HOSTS):
            self.start_ray(host)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for host in list(self._rays):
            self.stop_ray(host)
        self._remove()

    def _remove(self) -> None:
        for host in range(HOSTS):
            for pid in _ip("netns", "pids", _name(host), check=False).split():
                os.kill(int(pid), signal.SIGKILL)
            _ip("netns", "del", _name(host), check=False)
            _ip("link", "del", f"rmv{host}", check=False)  # stays while a dying process still holds the namespace
        _ip("link", "del", BRIDGE, check=False)

    def start_ray(self, host: int) -> None:
        """Start Ray on a host, and wait until it listens."""
        place = (
            ["--head", f"--port={PORT}", "--include-dashboard=false"]
            if host == 0
            else [f"--address={_address(0)}:{PORT}"]
        )
        cpus = 0 if host == 0 else 2
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", *place, f"--node-ip-address={_address(host)}"),
            *(f"--num-cpus={cpus}", "--object-store-memory=200000000", "--block"),
        ]
        log = open(self.folder / f"ray{host}.log", "ab")  # noqa: SIM115  the process keeps it
        self._rays[host] = self.popen(host, command, log)
        deadline = time.time() + 60
        while b"Ray runtime started" not in (self.folder / f"ray{host}.log").read_bytes():
            if time.time() > deadline or self._rays[host].poll() is not None:
                raise SystemExit(f"Ray did not start on host {host}: see {self.folder}/ray{host}.log")
            time.sleep(0.2)

    def stop_ray(self, host: int) -> None:
        """Take Ray and all its processes from a host at once."""
        driver = self._rays.pop(host)
        for pid in _ip("netns", "pids", _name(host), check=False).split():
            if host or int(pid) == driver.pid or b"ray" in _cmdline(pid):
                _kill(int(pid))
        driver.wait()
        (self.folder / f"ray{host}.log").unlink()

    def popen(self, host: int, command: list[str], log: Any) -> subprocess.Popen[bytes]:
        """Start a process on a host."""
        temporary = self.folder / f"t{host}"
        temporary.mkdir(exist_ok=True)
        environment = {**os.environ, **ENVIRONMENT, "RAY_TMPDIR": str(temporary)}
        inside = ["ip", "netns", "exec", _name(host), *command]
        return subprocess.Popen(inside, env=environment, stdout=log, stderr=log)

    def train(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a training with its driver on host 0; its run lies in the folder `name`."""
        place = [f"address={_address(0)}:{PORT}", f"output={self.folder / name}", "workers=4", "placement=spread"]
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115  the process keeps it
        command = [sys.executable, "-m", "raymeta.train", "--log-format", "plain", *place, *options]
        return self.popen(0, command, log)

    def run(self, name: str) -> Run:
        """The run in the folder `name`."""
        (path,) = (self.folder / name).glob("*/run.json")
        return Run.open(path.parent)

    def wait_for_step(self, name: str, step: int, process: subprocess.Popen[bytes], seconds: float = 240) -> float:
        """Wait until a training has done `step`; returns the seconds it took."""
        began = time.time()
        while time.time() < began + seconds:
            if any((self.folder / name).glob("*/metrics.jsonl")):
                rows = self.run(name).metrics()
                if rows and rows[-1]["step"] >= step:
                    return time.time() - began
            if process.poll() not in (None, 0):
                break
            time.sleep(0.1)
        raise SystemExit(f"step {step} was not reached: see {self.folder}/{name}.log")

    def link(self, host: int, state: str) -> None:
        """Set a host's link `down` or `up`."""
        _ip("-n", _name(host), "link", "set", "eth0", state)

    def limit(self, mbit: float | None) -> None:
        """Limit what every host may send; None lifts it."""
        for host in range(HOSTS):
            tc = ["tc", "-n", _name(host), "qdisc"]
            subprocess.run([*tc, "del", "dev", "eth0", "root"], check=False, capture_output=True)
            if mbit is not None:
                rate = ["tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "400ms"]
                subprocess.run([*tc, "add", "dev", "eth0", "root", *rate], check=True)

    def received(self) -> int:
        """Bytes that host 0 has received."""
        shown = json.loads(_ip("-n", _name(0), "-s", "-j", "link", "show", "eth0"))
        return int(shown[0]["stats64"]["rx"]["bytes"])


def _name(host: int) -> str:
    return f"raymeta{host}"


def _address(host: int) -> str:
    return f"10.77.0.{host + 1}"


def _ip(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"ip {' '.join(arguments)}: {done.stderr.strip()} (root is needed)")
    return done.stdout


def _cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def cut(hosts: Hosts, options: list[str], steps: int) -> dict[str, Any]:
    """Cut links while training runs; compare its bits with those of one process."""
    training = hosts.train("cut", *options, "compile=false", f"steps={steps}", "min_workers=1")
    hosts.wait_for_step("cut", 5, training)
    rows: dict[str, float] = {}
    last = _last(hosts)
    hosts.link(1, "down")
    rows["next step, link of a host cut for 3 s"] = hosts.wait_for_step("cut", last + 1, training)
    time.sleep(3)
    hosts.link(1, "up")
    time.sleep(3)
    last = _last(hosts)
    hosts.link(2, "down")
    rows["next step, link of a host cut for good"] = hosts.wait_for_step("cut", last + 1, training)
    time.sleep(15)
    hosts.link(2, "up")
    hosts.stop_ray(2)
    hosts.start_ray(2)  # as the machine's service would
    code = training.wait(600)
    checkpoint, _ = CheckpointStore(hosts.run("cut").path / "checkpoints").load_last()
    assert checkpoint is not None
    alone = _alone(hosts, options, steps)
    events = [event["kind"] for event in hosts.run("cut").events()]
    sha = params_sha256(checkpoint.learned.params)
    return {
        "seconds": rows,
        "exit_code": code,
        "steps": checkpoint.step,
        "events": {kind: events.count(kind) for kind in sorted(set(events))},
        "params_sha256": sha,
        "in_process_sha256": alone,
        "equal": sha == alone,
    }


def _last(hosts: Hosts) -> int:
    return int(hosts.run("cut").metrics()[-1]["step"])


def _alone(hosts: Hosts, options: list[str], steps: int) -> str:
    output = hosts.folder / "alone"
    options = [*options, "compile=false", f"steps={steps}", f"output={output}"]
    command = [sys.executable, "-m", "raymeta.train", "-q", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT})
    return str((hosts.run("alone").summary or {})["params_sha256"])


def traffic(hosts: Hosts, options: list[str], mbits: list[float], rounds: int) -> dict[str, Any]:
    """Bytes and seconds of a step by way of aggregation and bandwidth, interleaved."""
    rows = []
    for turn in range(rounds):
        for mbit in [None, *mbits]:
            for aggregate in ("flat", "node"):
                hosts.limit(mbit)
                name = f"traffic-{turn}-{mbit}-{aggregate}"
                training = hosts.train(name, *options, "steps=1000000", "compile=false", f"aggregate={aggregate}")
                hosts.wait_for_step(name, 5, training)
                before, first = hosts.received(), hosts.run(name).metrics()[-1]["step"]
                began = time.time()
                time.sleep(10)
                metrics = hosts.run(name).metrics()
                done = metrics[-1]["step"] - first
                rows.append(
                    {
                        "round": turn,
                        "mbit": mbit,
                        "aggregate": aggregate,
                        "steps": done,
                        "step_s": (time.time() - began) / max(1, done),
                        "received_mb_per_step": (hosts.received() - before) / max(1, done) / 1e6,
                    }
                )
                print(rows[-1], flush=True)
                training.send_signal(signal.SIGKILL)
                training.wait()
    flat = [r["received_mb_per_step"] for r in rows if r["aggregate"] == "flat"]
    node = [r["received_mb_per_step"] for r in rows if r["aggregate"] == "node"]
    return {"rows": rows, "bytes_node_over_flat": sum(node) / sum(flat)}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cut", "traffic"])
    parser.add_argument("--root", required=True, help="folder of the Omniglot data")
    parser.add_argument("--steps", type=int, default=150, help="steps of the training whose links are cut")
    parser.add_argument("--mbit", type=float, nargs="*", default=[100.0, 25.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-record", action="store_true", help="write no result file")
    arguments = parser.parse_args()
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
        print("needs root and the programs ip and tc (package iproute2)", file=sys.stderr)
        return 3
    folder = Path(tempfile.mkdtemp(prefix="rmh-"))
    options = [
        *("--preset", "omniglot-5w1s-maml", f"tasks.root={arguments.root}", "meta_batch_size=32", "shard_size=2"),
        *("validate_every=0", "test_episodes=8", "checkpoint_every=50"),
    ]
    with Hosts(folder) as hosts:
        if arguments.what == "cut":
            content = cut(hosts, options, arguments.steps)
            good = content["equal"] and content["exit_code"] == 0
        else:
            content = traffic(hosts, options, arguments.mbit, arguments.rounds)
            good = content["bytes_node_over_flat"] < 0.5
    print(json.dumps(content, indent=2))
    if not arguments.no_record:
        record(f"hosts-{arguments.what}", content)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
