"""`raymeta tune` before any trial runs: what it refuses, what a dry run says, and who may work on a sweep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raymeta.api.describe import without_effect
from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.runs.lock import DirectoryLock
from raymeta.sweeps.file.load import load_sweep
from raymeta.sweeps.records import Records
from raymeta.sweeps.summary import SweepFiles, trial_config
from raymeta.sweeps.tune.driver import new_directory, run_sweep
from raymeta.tune import main

SWEEP = """\
base: sinusoid-maml
options: {steps: 20, model.hidden: [8], meta_batch_size: 4, validation_episodes: 8, test_episodes: 8}
space: {algorithm.inner_lr: {loguniform: [0.01, 0.1]}}
samples: 3
report_every: 10
resources: {workers: 0}
"""


def tune_elsewhere(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which is joined to no cluster of other tests."""
    command = [sys.executable, "-m", "raymeta.tune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(SWEEP)
    return path


@pytest.mark.parametrize(
    ("options", "pieces"),
    [
        ("--workers 4", ["command line --workers", "resources.workers"]),
        ("--checkpoint_every 3", ["command line --checkpoint_every", "report_every"]),
        ("--algorithm.inner_lr 0.02", ["command line --algorithm.inner_lr", "searched", "s.yaml:3"]),
        ("--output s3://bucket/x", ["--output s3://bucket/x", "local folder", "--mirror"]),
        ("-c other.yaml", ["one"]),
        ("--address ray://host:10001", ["ray://host:10001", "ray job submit"]),
        ("--samples ²", ["--samples ²", "whole number"]),
    ],
)
def test_what_a_sweep_would_ignore_is_refused(
    options: str, pieces: list[str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-c", str(file), "--dry-run", *options.split()]) == 2
    told = capsys.readouterr().err
    assert all(piece in told for piece in pieces), told
    assert len(told.splitlines()) == 1


def test_a_sweep_that_can_never_fit_is_told_and_leaves_nothing(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SWEEP.replace("workers: 0", "workers: 1, gpus_per_worker: 1, accelerator_type: NONE-SUCH"))
    out = ["--output", str(tmp_path / "out")]
    assert main(["-c", str(file), "--dry-run", *out]) == 0
    assert "not on this machine" in capsys.readouterr().out
    done = tune_elsewhere("-c", str(file), *out)
    assert done.returncode == 3
    assert "can never start: 1 worker x 1 GPU" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_dry_resume_runs_nothing(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = load_sweep(file)
    directory = new_directory(sweep, tmp_path)
    records = Records.load(directory / "records", 1)
    records.new(0, 0, {"algorithm.inner_lr": 0.1}).status = "finished"
    records.save(records.by_id["0000"])
    records.new(1, 0, {"algorithm.inner_lr": 0.2})
    before = sorted(directory.rglob("*"))
    assert main(["--resume", str(directory), "--dry-run", "--samples", "5"]) == 0
    assert "1 of 5 trials ended, 1 go on, 3 are to begin" in capsys.readouterr().out
    assert sorted(directory.rglob("*")) == before


def test_fewer_samples_than_were_tried_are_refused(file: Path, tmp_path: Path) -> None:
    directory = new_directory(load_sweep(file), tmp_path)
    records = Records.load(directory / "records", 1)
    for i in range(3):
        records.new(i, 0, {"algorithm.inner_lr": 0.1})
    with pytest.raises(ConfigError, match="has tried 3 configurations, and samples 2 asks for 2"):
        run_sweep(directory, changes={"samples": 2})


def test_a_sweep_has_one_driver(file: Path, tmp_path: Path) -> None:
    directory = new_directory(load_sweep(file), tmp_path)
    first = DirectoryLock(directory)
    try:
        with pytest.raises(EnvironmentProblem, match="another driver works on"):
            run_sweep(directory)
    finally:
        first.release()


def test_a_driver_that_fails_says_so_and_the_first_day_of_a_sweep_stays(file: Path, tmp_path: Path) -> None:
    sweep = load_sweep(file)
    directory = new_directory(sweep, tmp_path)
    done = tune_elsewhere("--resume", str(directory), "--address", "127.0.0.1:1")
    assert done.returncode == 3
    assert "nothing answers at --address" in done.stderr
    first = json.loads((directory / "summary.json").read_text())
    assert first["status"] == "failed"
    assert "nothing answers" in first["reason"]
    (directory / "summary.json").write_text(json.dumps({**first, "created": "2020-01-01T00:00:00+00:00"}))
    again = SweepFiles(sweep, Records(directory / "records", 1), directory).write("running")
    assert again["created"] == "2020-01-01T00:00:00+00:00"


def test_a_trial_in_its_own_process_says_nothing_of_workers(file: Path, tmp_path: Path) -> None:
    record = Records(tmp_path / "records", 1).new(0, 0, {"algorithm.inner_lr": 0.1})
    assert without_effect(trial_config(load_sweep(file), record, tmp_path)) == []


def test_trials_of_two_sweeps_are_mirrored_apart(file: Path, tmp_path: Path) -> None:
    file.write_text(SWEEP.replace("{steps", f"{{mirror: 'file://{tmp_path}/store', steps"))
    sweep = load_sweep(file)
    places = []
    for directory in (tmp_path / "sweeps" / "a", tmp_path / "sweeps" / "b"):
        directory.mkdir(parents=True)
        trial = Records(directory / "records", 1).new(0, 0, {"algorithm.inner_lr": 0.1})
        places.append(trial_config(sweep, trial, directory).mirror)
    assert places == [f"file://{tmp_path}/store/sweeps/{name}/trials" for name in "ab"]
