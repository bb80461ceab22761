"""Going on with a run: from the right checkpoint, by one process, with nothing lost and nothing in silence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta.errors import EnvironmentProblem, RaymetaWarning
from raymeta.runs.lock import RunLock
from raymeta.runs.read import Run
from raymeta.runs.write import RunWriter
from raymeta.train import main as train

SMALL: dict[str, Any] = {"preset": "sinusoid-maml", "model.hidden": [8], "meta_batch_size": 2, "shard_size": 1}
SMALL |= {"steps": 6, "checkpoint_every": 2, "validate_every": 0, "test_episodes": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return raymeta.meta_train(output=str(tmp_path_factory.mktemp("runs")), **SMALL)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A finished run of six steps with checkpoints of steps 2, 4 and 6."""
    shutil.copytree(finished.path, tmp_path / finished.id)
    return Run.open(tmp_path / finished.id)


def resumed(run: Run, *options: str) -> int:
    return train(["--resume", str(run.path), "--log-format", "plain", *options])


def test_all_checkpoints_gone_is_no_restart(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run.path / "run.json").read_bytes()
    shutil.rmtree(run.path / "checkpoints")
    assert resumed(run) == 3
    told = capsys.readouterr().err
    assert "checkpoints holds no checkpoint, although the one of step 6 was saved there" in told
    assert "-c " in told
    assert (run.path / "run.json").read_bytes() == before, "a run that cannot go on stays as it was"
    assert train(["--resume", str(run.path), "--dry-run"]) == 3, "a dry run tells it, too"


def test_a_lost_run_that_had_a_checkpoint_is_no_restart(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A killed run's own word on its checkpoints is in its events."""
    (run.path / "run.json").write_text(json.dumps({**run.info, "status": "running", "pid": 2**22 + 1}))
    shutil.rmtree(run.path / "checkpoints")
    assert resumed(run) == 3
    assert "although the one of step 6 was saved" in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["state.json", "folder"])
def test_falling_back_is_a_warning(run: Run, loss: str, capsys: pytest.CaptureFixture[str]) -> None:
    newest = run.path / "checkpoints" / "step-00000006"
    shutil.rmtree(newest) if loss == "folder" else (newest / loss).unlink()
    sha256 = (run.summary or {})["params_sha256"]
    assert resumed(run, "-q") == 0
    told = capsys.readouterr().err
    assert "warning: " in told
    assert "step-00000006" in told
    assert "the checkpoint of step 4 is used" in told
    assert (run.summary or {})["params_sha256"] == sha256


def test_killed_before_the_first_checkpoint_starts_again_and_says_so(run: Run, tmp_path: Path) -> None:
    settings = [f"{key}={json.dumps(value)}" for key, value in SMALL.items() if key not in ("steps", "preset")]
    command = [sys.executable, "-m", "raymeta.train", "--preset", "sinusoid-maml", *settings]
    output = tmp_path / "killed"
    command += ["checkpoint_every=1000000", "steps=1000000", "compile=false", "--output", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(p.stat().st_size for p in output.glob("*/metrics.jsonl")):
        time.sleep(0.02)
    process.kill()
    process.communicate()
    (killed,) = (Run.open(path) for path in output.iterdir() if path.is_dir())
    with pytest.warns(RaymetaWarning, match=r"before its first checkpoint: it starts again"):
        again = raymeta.meta_train(resume=killed.path, steps=6)
    assert (again.summary or {})["params_sha256"] == (run.summary or {})["params_sha256"]
    assert "continues at step 0 of 6 in this process" in [e["message"] for e in again.events()]


def test_fewer_steps_than_are_done_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.path.glob("*.*") if path.is_file()}
    assert resumed(run, "--steps", "3") == 2
    told = capsys.readouterr().err
    assert "steps 3 is below the 6 that are done" in told
    assert {path: path.read_bytes() for path in before} == before


def test_a_finished_run_keeps_its_time_and_rate(run: Run) -> None:
    before = run.summary or {}
    assert resumed(run, "--test-episodes", "5") == 0
    after = run.summary or {}
    assert after["headline"]["episodes"] == 5
    assert after["tasks_per_s"] == before["tasks_per_s"] > 0
    spent = [event["time"] for event in run.events() if event["attempt"] == 1]
    assert after["wall_s"] >= spent[-1] - spent[0] > 0
    resumed(run, "--steps", "12")
    more = run.summary or {}
    assert more["steps"] == 12
    assert more["wall_s"] > after["wall_s"]
    state = json.loads((run.path / "checkpoints/step-00000012/state.json").read_text())
    assert state["tasks"] == 12 * 2
    assert more["tasks_per_s"] == pytest.approx(24 / state["train_s"])


def test_a_missing_best_checkpoint_is_named_with_what_was_tested(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = [f"{key}={json.dumps(value)}" for key, value in SMALL.items() if key != "preset"]
    options += ["validate_every=2", "validation_episodes=2", "outer.lr=0.5"]
    assert train(["--preset", "sinusoid-maml", *options, "--output", str(tmp_path / "new")]) == 0
    (trained,) = (Run.open(path) for path in (tmp_path / "new").iterdir() if path.is_dir())
    summary = trained.summary or {}
    best = summary["best_step"]
    assert summary["scored_checkpoint"] == best < 6, "this test needs a run that gets worse"
    assert "(best on validation)" in capsys.readouterr().out
    shutil.rmtree(trained.path / "checkpoints" / f"step-{best:08d}")
    assert resumed(trained, "--test-episodes", "3") == 0
    said = capsys.readouterr()
    assert f"step-{best:08d}" in said.err
    assert "the parameters of step 6 are tested in place of the best" in said.err
    assert f"the last, as that of step {best}, the best, cannot be read" in said.out


# One writer


def test_two_that_resume_at_the_same_instant_do_not_both_write(run: Run) -> None:
    """Both have read the same dead run before either begins to write."""
    code = (
        "import sys, raymeta\nfrom raymeta.api.resume import resumed_config\nfrom raymeta.api.train import Training\n"
        "run = raymeta.load_run(sys.argv[1])\n"
        "training = Training(resumed_config(run, {'steps': 12}).config, resume=run)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    training.execute()\nexcept raymeta.RaymetaError as error:\n    sys.exit(str(error))\n"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    (refused,) = (error for error, process in zip(errors, both, strict=True) if process.returncode)
    assert "is being written by" in refused or "was continued by another process" in refused
    assert [event["kind"] for event in run.events()].count("resumed") == 1
    assert Run.open(run.path).status == "finished"
    assert [row["step"] for row in run.metrics()] == list(range(1, 13))


def test_a_claim_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    claim = RunLock(tmp_path / "run")
    with pytest.raises(EnvironmentProblem, match="one writer"):
        RunWriter(tmp_path / "run", steps=1)
    claim.release()
    claim.release()
    RunWriter(tmp_path / "run", steps=1).close()
    RunWriter(tmp_path / "run", steps=1).close()


def test_a_torn_run_json_is_told_and_costs_no_attempt(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.path / "run.json").write_text("{")
    assert resumed(run, "--steps", "8") == 0
    assert "warning: run.json cannot be read" in capsys.readouterr().err
    assert Run.open(run.path).info["attempt"] == 2


# Rates


@pytest.mark.parametrize(
    ("schedule", "steps", "code"),
    [
        ({"outer.schedule": "cosine"}, "12", 2),
        ({"outer.schedule": "linear"}, "12", 2),
        ({"outer.schedule": "linear", "algorithm": "reptile"}, "7", 2),
        ({"algorithm": "reptile"}, "12", 2),
        ({"outer.schedule": "linear", "outer.final_lr": 0.01, "outer.lr": 0.01}, "12", 0),
        ({"outer.schedule": "step", "outer.step_every": 2}, "12", 0),
        ({"outer.schedule": "constant"}, "12", 0),
        ({"outer.schedule": "cosine"}, "6", 0),
    ],
)
@pytest.mark.filterwarnings("ignore:option algorithm switches")
def test_more_steps_where_the_rate_falls_over_all_of_them_are_refused(
    tmp_path: Path, schedule: dict[str, Any], steps: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is allowed has the bits of a run that had so many steps from its beginning."""
    run = raymeta.meta_train(output=str(tmp_path / "short"), **SMALL | schedule)
    assert resumed(run, "-q", "--steps", steps) == code
    told = capsys.readouterr().err
    if code:
        assert f"cannot change steps from 6 to {steps}" in told
        assert f"--steps {steps}" in told
        assert resumed(run, "-q") == 0, "with its own steps it goes on"
        return
    longer = raymeta.meta_train(output=str(tmp_path / "long"), **SMALL | schedule | {"steps": int(steps)})
    assert (run.summary or {})["params_sha256"] == (longer.summary or {})["params_sha256"]


def test_fewer_steps_of_a_falling_rate_are_refused_once_a_rate_was_another(tmp_path: Path) -> None:
    run = raymeta.meta_train(output=str(tmp_path), **SMALL | {"outer.schedule": "cosine"})
    for step in (6, 4):
        shutil.rmtree(run.path / "checkpoints" / f"step-{step:08d}")
    assert resumed(run, "-q", "--steps", "5") == 2
    shutil.rmtree(run.path / "checkpoints")
    for name in ("events.jsonl", "run.json"):  # as if it had been killed before its first checkpoint
        (run.path / name).write_text("{}" if name == "run.json" else "")
    assert resumed(run, "-q", "--steps", "5") == 0


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_test_stops_with_everything_saved(run: Run, number: int) -> None:
    command = [sys.executable, "-m", "raymeta.train", "--resume", str(run.path), "test_episodes=100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and "resumed" not in [event["kind"] for event in run.events()]:
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(process.pid, number)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "raymeta train --resume" in out
    stopped = Run.open(run.path)
    assert stopped.status == "stopped"
    assert [event["kind"] for event in run.events()][-1] == "stopped"
    assert train(["--resume", str(run.path), "test_episodes=4"]) == 0


def test_what_started_a_run_may_be_given_again_so_that_a_job_can_be_requeued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cluster/train.sh` repeats the whole command line, with --resume at its end."""
    file = tmp_path / "mine.yaml"
    file.write_text("preset: sinusoid-maml\nmodel: {hidden: [8]}\nmeta_batch_size: 2\nshard_size: 1\nsteps: 3\n")
    line = ["-c", str(file), "--outer.lr", "0.01", "--validate_every", "0", "--test_episodes", "4", "-q"]
    line += ["--output", str(tmp_path / "runs")]
    assert train(line) == 0
    assert train([*line, "--steps", "4", "--resume"]) == 0
    (path,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert Run.open(path).info["step"] == 4
    capsys.readouterr()
    file.write_text(file.read_text().replace("[8]", "[16]"))
    assert train([*line, "--resume"]) == 2
    assert "cannot change model" in capsys.readouterr().err
