"""Stops while something starts, and the end of Ray under a run: told in a sentence, resumable, with the right code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta.config.build import Built
from raymeta.engine.executors.ray_actors.watched import Watched
from raymeta.errors import EnvironmentProblem
from raymeta.runs.read import Run
from raymeta.system.signals import handlers_kept, termination_interrupts

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
SLOW_S = 120.0


def started(output: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "raymeta.train", "--preset", "sinusoid-maml", "--workers", "2"]
    command += ["--output", str(output), "--log-format", "plain", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + SLOW_S
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid: int) -> dict[str, int]:
    """Process ids of the children of a process by the name of their program."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = (
                stat.read_text().partition("(")[2].rpartition(")")[0],
                "",
                stat.read_text().rpartition(")")[2],
            )
        except OSError:
            continue
        if int(rest.split()[1]) == pid:
            found[name] = int(stat.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 1.0, 2.5, 4.0])
def test_sigterm_while_workers_start_is_a_stop(tmp_path: Path, delay: float) -> None:
    process = started(tmp_path, "--steps", "100000", "--compile", "false")
    wait_for(lambda: list(tmp_path.glob("2*/events.jsonl")))
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=SLOW_S)
    assert process.returncode == 130, err
    assert "raymeta train --resume" in out
    (run,) = (Run.open(path.parent) for path in tmp_path.glob("2*/run.json"))
    assert run.status == "stopped"


def test_a_swallowed_interrupt_is_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's import, and its start, run code that catches everything."""
    executor = Built.executor

    def swallowing(built: Built, tell: Any) -> Any:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        return executor(built, tell)

    monkeypatch.setattr(Built, "executor", swallowing)
    run = raymeta.meta_train("sinusoid-maml", steps=20, output=str(tmp_path))
    assert run.status == "stopped"
    assert run.metrics() == []


@pytest.mark.slow
def test_a_killed_raylet_ends_the_run_with_what_happened(tmp_path: Path) -> None:
    """Ray's own C++ would end the process without a word.

    It does where parameters are on their way to Ray's store just then, so steps are long here.
    """
    long = ("--meta_batch_size", "1024", "--shard_size", "512", "--algorithm.inner_steps", "5", "--compile", "false")
    process = started(tmp_path, "--steps", "1000000", "--checkpoint_every", "2", "--validate_every", "0", *long)
    wait_for(lambda: list(tmp_path.glob("2*/checkpoints/index.json")))
    os.kill(children(process.pid)["raylet"], signal.SIGKILL)
    _, err = process.communicate(timeout=SLOW_S)
    assert process.returncode == 3, err
    assert "raymeta train: Ray has ended on this machine: its raylet" in err
    assert "Traceback" not in err
    (folder,) = (path.parent for path in tmp_path.glob("2*/run.json"))
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "failed"
    assert "continue with --resume" in info["reason"]
    assert list(folder.glob("checkpoints/step-*"))


def test_a_process_that_is_gone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr("raymeta.engine.executors.ray_actors.watched.processes", lambda ray: [("raylet", process.pid)])
    watched = Watched(None)
    watched.require_alive()
    process.kill()
    wait_for(watched.gone)
    with pytest.raises(EnvironmentProblem, match=rf"its raylet \(process {process.pid}\) is gone"):
        watched.require_alive()
    watched.close()
    watched.require_alive()
    process.wait()


def test_rays_handlers_do_not_stay() -> None:
    def ends_the_process(number: int, frame: object) -> None:
        sys.exit(number)

    def starting(number: int | None) -> None:
        with handlers_kept():
            signal.signal(signal.SIGTERM, ends_the_process)
            if number is not None:
                os.kill(os.getpid(), number)
                time.sleep(1)

    with termination_interrupts():
        ours = signal.getsignal(signal.SIGTERM)
        starting(None)
        assert signal.getsignal(signal.SIGTERM) is ours
        with pytest.raises(KeyboardInterrupt):
            starting(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is ours
