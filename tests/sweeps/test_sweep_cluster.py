"""Sweeps and their cluster: trials side by side without deadlock, misfits, lost workers, and every scheduler."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta.errors import EnvironmentProblem
from raymeta.sweeps.file.load import load_sweep
from raymeta.sweeps.tune.driver import Outcome, new_directory, run_sweep

TINY = """\
base: glyphs-5w1s-maml
options: {steps: 12, meta_batch_size: 4, shard_size: 1, validation_episodes: 8, test_episodes: 8}
report_every: 3
"""
THREE = "space: {model.width: 4, algorithm.inner_lr: {grid: [0.3, 0.1, 0.03]}}\n"


def prepared(tmp_path: Path, text: str) -> Path:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "tiny.yaml").write_text(TINY + text)
    return new_directory(load_sweep(tmp_path / "tiny.yaml"), tmp_path)


def sweep(tmp_path: Path, text: str) -> Outcome:
    return run_sweep(prepared(tmp_path, text), mode="plain", quiet=True)


def records(directory: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((directory / "records").glob("*.json"))}


@pytest.mark.slow
def test_two_trials_of_two_workers_run_side_by_side_and_a_third_waits(local_ray: Any, tmp_path: Path) -> None:
    """Room for four workers: eight CPUs, two for each. If drivers took a CPU, a second trial would not fit."""
    assert local_ray.cluster_resources()["CPU"] == 8
    outcome = sweep(tmp_path, THREE + "resources: {workers: 2, cpus_per_worker: 2}\n")
    assert outcome.summary["counts"]["finished"] == 3
    spans = sorted((r["began"], r["ended"]) for r in records(outcome.directory).values())
    assert spans[1][0] < spans[0][1], "the second began before the first ended"
    assert spans[2][0] >= min(spans[0][1], spans[1][1]) - 0.5, "the third waited for room"
    for trial in outcome.summary["trials"]:
        run = raymeta.load_run(outcome.directory / "trials" / trial["trial"])
        rows = run.workers()[-1]["workers"]
        assert len(rows) == 2
        assert all(row["tasks"] > 0 for row in rows)


def test_a_misfit_fails_with_the_arithmetic(local_ray: Any, tmp_path: Path) -> None:
    directory = prepared(tmp_path, THREE + "resources: {workers: 5, cpus_per_worker: 2}\n")
    with pytest.raises(EnvironmentProblem, match=r"5 workers x 2 CPUs asked, 8 CPUs in the cluster.*room for 4"):
        run_sweep(directory, mode="plain", quiet=True)
    assert not list((directory / "records").glob("*")), "nothing was started"


def kill_soon(directory: Path, of: str, killed: list[int]) -> threading.Thread:
    """Kill a process of trial 0000 after its second report: a worker, or the trial's own."""

    def kill() -> None:
        trial = directory / "trials" / "0000"
        while not killed:
            time.sleep(0.02)
            state = records(directory).get("0000", {"reports": []})
            rows = [row for line in _lines(trial / "workers.jsonl") for row in line["workers"]]
            if len(state["reports"]) >= 2 and rows:
                pid = rows[-1]["pid"] if of == "worker" else json.loads((trial / "run.json").read_text())["pid"]
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("of", ["worker", "driver of the trial"])
def test_killed_processes_change_no_result(of: str, local_ray: Any, tmp_path: Path) -> None:
    quiet = _long(tmp_path / "quiet")
    expected = run_sweep(quiet, mode="plain", quiet=True).summary["trials"][0]
    directory, killed = _long(tmp_path / "killed"), list[int]()
    thread = kill_soon(directory, of, killed)
    trial = run_sweep(directory, mode="plain", quiet=True).summary["trials"][0]
    thread.join(timeout=5)
    assert killed, "nothing was killed"
    assert {**trial, "wall_s": 0} == {**expected, "wall_s": 0}
    assert records(directory)["0000"]["reports"] == records(quiet)["0000"]["reports"]
    run = raymeta.load_run(directory / "trials" / "0000")
    if of == "worker":
        assert any(event["kind"] == "worker_lost" for event in run.events())
    else:
        assert run.info["attempt"] == 2


LONG = """\
base: glyphs-5w1s-maml
options: {steps: 40, model.width: 4, meta_batch_size: 4, shard_size: 1, validation_episodes: 8, test_episodes: 8}
space: {algorithm.inner_lr: 0.1}
report_every: 5
resources: {workers: 2}
"""


def _long(tmp_path: Path) -> Path:
    tmp_path.mkdir()
    (tmp_path / "long.yaml").write_text(LONG)
    return new_directory(load_sweep(tmp_path / "long.yaml"), tmp_path)


RANDOM = """\
space:
  model.width: 4
  algorithm.inner_lr: {loguniform: [0.01, 1]}
  outer.lr: {loguniform: [0.0001, 0.1]}
samples: 4
resources: {workers: 0}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "scheduler: {name: hyperband, reduction_factor: 2}\n",
        "scheduler: {name: median, min_samples_required: 2}\nconcurrent: 2\n",
        "search: {name: tpe, startup: 2}\nconcurrent: 2\n",
        "search: {name: evolution, population: 2, tournament: 2}\n",
        "repeats: 2\nscheduler: asha\n",
        "stop: {patience: 1}\n",
    ],
)
def test_every_scheduler_and_search_brings_all_trials_to_an_end(text: str, local_ray: Any, tmp_path: Path) -> None:
    outcome = sweep(tmp_path, RANDOM + text)
    counts = outcome.summary["counts"]
    total = 8 if "repeats" in text else 4
    assert counts["finished"] + counts["stopped_early"] == total
    assert counts["finished"] >= 1
    assert outcome.summary["best"]["params_sha256"] is not None
    if "patience" in text:
        reasons = {t["reason"] for t in outcome.summary["trials"] if t["status"] == "stopped early"}
        assert reasons <= {"no better score in 1 reports"}
    if "repeats" in text:
        assert len(outcome.summary["best"]["trials"]) == 2
        assert {t["seed"] for t in outcome.summary["trials"]} == {0, 1}


@pytest.mark.slow
def test_pbt_copies_parameters_and_mutates_rates_only(local_ray: Any, tmp_path: Path) -> None:
    text = """\
space:
  outer.lr: {loguniform: [1.0e-6, 0.1]}
  model.width: {choice: [4, 8]}
samples: 4
resources: {workers: 0}
scheduler: {name: pbt, perturbation_interval: 3, quantile_fraction: 0.5}
"""
    outcome = sweep(tmp_path, text)
    assert outcome.summary["counts"]["finished"] == 4
    every = records(outcome.directory)
    changes = [(record, change) for record in every.values() for change in record["changes"]]
    assert changes, "nobody copied anybody"
    widths = {json.dumps(r["point"]["model.width"]) for r in every.values()}
    for _, change in changes:
        assert json.dumps(change["point"]["model.width"]) in widths
        assert 1e-6 <= change["point"]["outer.lr"] <= 0.1
    for name, record in every.items():
        run = raymeta.load_run(outcome.directory / "trials" / name)
        last = record["changes"][-1]["point"] if record["changes"] else record["point"]
        assert run.config["outer"]["lr"] == last["outer.lr"]
        assert run.config["model"]["width"] == last["model.width"]
        assert run.status == "finished"
        assert raymeta.meta_test(run, episodes=4).summary.episodes == 4
    copied = bool(every[outcome.summary["best"]["trial"]]["changes"])
    assert ("No single run repeats it" in (outcome.directory / "best.yaml").read_text()) == copied
