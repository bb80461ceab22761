"""Sweeps on a real Ray: every trial an ordinary run, nothing repeated, failures told, the best one repeatable."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import raymeta
from raymeta.config.layers import Override
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.sweeps.file.load import load_sweep
from raymeta.sweeps.resources import share_of
from raymeta.sweeps.tune.driver import Outcome, new_directory, run_sweep
from raymeta.sweeps.tune.trial import Reporter
from raymeta.trackers.scores import Scores

TINY = """\
base: glyphs-5w1s-maml
options: {steps: 12, model.width: 4, meta_batch_size: 2, shard_size: 1, validation_episodes: 8, test_episodes: 8}
report_every: 3
resources: {workers: 0}
"""


def sweep(tmp_path: Path, text: str, **changes: Any) -> Outcome:
    (tmp_path / "tiny.yaml").write_text(TINY + text)
    directory = new_directory(load_sweep(tmp_path / "tiny.yaml", changes=changes), tmp_path)
    return run_sweep(directory, mode="plain", quiet=True)


@pytest.fixture(scope="module")
def swept(local_ray: Any, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Four trials under ASHA, of which the one with an absurd rate fails."""
    text = """\
space:
  algorithm.inner_lr: {grid: [0.3, 1.0e+30, 0.1, 0.01]}
  outer.lr: 0.01
scheduler: {name: asha, reduction_factor: 2}
concurrent: 1
"""
    return sweep(tmp_path_factory.mktemp("swept"), text)


def test_every_trial_has_an_end_and_a_failing_one_stops_nothing(swept: Outcome) -> None:
    by_rate = {trial["config"]["algorithm.inner_lr"]: trial for trial in swept.summary["trials"]}
    assert set(by_rate) == {0.3, 1e30, 0.1, 0.01}
    assert by_rate[1e30]["status"] == "failed"
    assert "NonFiniteGradient" in by_rate[1e30]["reason"]
    assert "inner_lr" in by_rate[1e30]["reason"]
    others = [by_rate[rate]["status"] for rate in (0.3, 0.1, 0.01)]
    assert set(others) <= {"finished", "stopped early"}
    assert "finished" in others
    assert swept.summary["status"] == "finished"
    assert swept.summary["counts"]["failed"] == 1


def test_every_trial_left_an_ordinary_run(swept: Outcome) -> None:
    expected = {"finished": "finished", "stopped early": "stopped", "failed": "failed"}
    for trial in swept.summary["trials"]:
        run = raymeta.load_run(swept.directory / "trials" / trial["trial"])
        assert run.status == expected[trial["status"]]
        assert run.config["algorithm"]["inner_lr"] == trial["config"]["algorithm.inner_lr"]
        assert run.config["outer"]["lr"] == 0.01
        if trial["status"] != "failed":
            reports = json.loads((swept.directory / "records" / f"{trial['trial']}.json").read_text())["reports"]
            rows = [
                [r["step"], r["val/accuracy"], r["val/accuracy_ci95"]] for r in run.metrics() if "val/accuracy" in r
            ]
            assert reports == rows
            assert raymeta.meta_test(run, episodes=4).summary.episodes == 4


def test_a_report_waits_for_its_checkpoint_however_late_that_is() -> None:
    told: list[int] = []
    session = SimpleNamespace(last=None, report=lambda report: told.append(report.step))
    reporter = Reporter(session, 12)  # type: ignore[arg-type]
    for step in (3, 6):
        reporter.validation(step, Scores("accuracy", [0.5], 0.5, 0.1, 4))
    assert told == []
    for step in (3, 3, 6):
        reporter.event("checkpoint", "", step=step)
    assert told == [3, 6]
    reporter.validation(12, Scores("accuracy", [0.5], 0.5, 0.1, 4))
    reporter.event("checkpoint", "", step=12)
    assert told == [3, 6], "the last one is told with the end"
    assert session.last.step == 12


def test_best_yaml_repeats_the_best_trial_as_it_is(swept: Outcome, tmp_path: Path) -> None:
    best = swept.summary["best"]
    finished = [t for t in swept.summary["trials"] if t["status"] == "finished"]
    assert best["value"] == max(trial["value"] for trial in finished)
    run = raymeta.meta_train(file=swept.directory / "best.yaml", output=str(tmp_path))
    assert (run.summary or {})["params_sha256"] == best["params_sha256"]
    assert (run.summary or {})["headline"] == best["headline"]
    assert yaml.safe_load((swept.directory / "best.yaml").read_text())["output"] == "results"


def test_a_sweep_that_ended_is_not_run_again(swept: Outcome, local_ray: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in (swept.directory / "trials").rglob("*") if path.is_file()}
    again = run_sweep(swept.directory, mode="plain", quiet=True)
    after = {path: path.stat().st_mtime_ns for path in (swept.directory / "trials").rglob("*") if path.is_file()}
    assert before == after
    assert again.summary["trials"] == swept.summary["trials"]


def command(tmp_path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "raymeta.tune", "--output", str(tmp_path), "--log-format", "plain", *options]


FOUR = """\
space:
  algorithm.inner_lr: {grid: [0.3, 0.1, 0.03, 0.01]}
concurrent: 2
"""


def records_of(directory: Path) -> list[dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in sorted((directory / "records").glob("*.json"))]
    return [{k: v for k, v in record.items() if k not in ("began", "ended")} for record in records]


def only_sweep(tmp_path: Path) -> Path:
    (directory,) = (path for path in (tmp_path / "sweeps").iterdir() if path.is_dir())
    return directory


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_trial_that_was_cut_off_goes_on_and_finished_ones_are_left_alone(local_ray: Any, tmp_path: Path) -> None:
    """The state that a killed driver leaves: one trial ended, one at half of its steps, two that never began."""
    whole = sweep(tmp_path, FOUR)
    half, late = whole.directory / "trials" / "0001", whole.directory / "trials" / "0002"
    expected = records_of(whole.directory)
    run = json.loads((half / "run.json").read_text())
    (half / "run.json").write_text(json.dumps({**run, "status": "running", "pid": 0}))
    os.utime(half / "run.json", (0, 0))
    (half / "summary.json").unlink()
    for name in ("step-00000009", "step-00000012"):
        shutil.rmtree(half / "checkpoints" / name)
    (half / "checkpoints" / "index.json").write_text('{"last": "step-00000006"}')
    for name in ("0001", "0002"):
        path = whole.directory / "records" / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": "running"}))
    shutil.rmtree(late)
    shutil.rmtree(whole.directory / "trials" / "0003")
    (whole.directory / "records" / "0003.json").unlink()
    before = (whole.directory / "trials" / "0000" / "run.json").stat().st_mtime_ns
    again = run_sweep(whole.directory, mode="plain", quiet=True)
    assert records_of(whole.directory) == expected
    assert again.summary["status"] == "finished"
    assert (whole.directory / "trials" / "0000" / "run.json").stat().st_mtime_ns == before
    assert raymeta.load_run(half).info["attempt"] == 2
    assert [row["step"] for row in raymeta.load_run(half).metrics()] == list(range(1, 13))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killing_the_driver_and_resuming_ends_like_an_undisturbed_sweep(local_ray: Any, tmp_path: Path) -> None:
    (tmp_path / "quiet").mkdir()
    quiet = sweep(tmp_path / "quiet", FOUR)
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(killed, "-c", str(tmp_path / "quiet" / "tiny.yaml")), start_new_session=True)
    wait_for(lambda: (killed / "sweeps").exists() and any(r["status"] == "finished" for r in _seen(killed)))
    process.kill()
    process.wait()
    directory = only_sweep(killed)
    finished = {r["id"] for r in records_of(directory) if r["status"] == "finished"}
    stamps = {name: (directory / "trials" / name / "summary.json").stat().st_mtime_ns for name in finished}
    assert 0 < len(finished) < 4
    done = subprocess.run(command(killed, "--resume", "latest"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert records_of(directory) == records_of(quiet.directory)
    for name, stamp in stamps.items():
        assert (directory / "trials" / name / "summary.json").stat().st_mtime_ns == stamp, "a finished trial ran again"
        assert raymeta.load_run(directory / "trials" / name).info["attempt"] == 1


def _seen(tmp_path: Path) -> list[dict[str, Any]]:
    return [r for path in (tmp_path / "sweeps").glob("*") if path.is_dir() for r in records_of(path)]


@pytest.mark.slow
def test_ctrl_c_keeps_everything_and_exits_130(local_ray: Any, tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(TINY.replace("steps: 12", "steps: 100000") + FOUR)
    process = subprocess.Popen(command(tmp_path, "-c", str(tmp_path / "long.yaml")), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "sweeps").exists() and sum(len(r["reports"]) > 1 for r in _seen(tmp_path)) >= 1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "raymeta tune --resume" in out
    directory = only_sweep(tmp_path)
    assert {r["status"] for r in records_of(directory)} == {"stopped"}
    for path in (directory / "trials").iterdir():
        run = raymeta.load_run(path)
        assert (run.status, run.info["reason"]) == ("stopped", "signal")
        assert CheckpointStore(path / "checkpoints").load_last()[0].step == run.info["step"]  # type: ignore[union-attr]
    assert json.loads((directory / "summary.json").read_text())["status"] == "stopped"


FILES = sorted((Path(__file__).parents[2] / "tune_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_sweep_file_is_valid(path: Path) -> None:
    loaded = load_sweep(path, check=False)
    cases = list(loaded.space.cases())
    assert len(cases) >= 4
    for case in cases:
        assert loaded.config(case.point).workers == 0, "workers come from the resources"
        assert share_of(loaded.file.resources, loaded.config(case.point)).workers >= 1
    assert path.read_text().startswith("# ")
    assert "Cost" in path.read_text() or "minutes" in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_sweep_file_builds_its_models(path: Path, request: pytest.FixtureRequest) -> None:
    needs_data = "omniglot" in load_sweep(path, check=False).file.base
    root = [Override("tasks.root", str(request.getfixturevalue("omniglot_root")), "test")] if needs_data else []
    load_sweep(path, overrides=root)


@pytest.mark.slow
def test_smoke_runs_and_best_yaml_repeats_it(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "-c", str(FILES[0].parent / "smoke.yaml")), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    directory = only_sweep(tmp_path)
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["counts"]["finished"] + summary["counts"]["stopped_early"] == 6
    assert set(summary["importance"]) == {"algorithm.inner_lr", "outer.lr"}
    assert len((directory / "trials.csv").read_text().splitlines()) == 7
    run = raymeta.meta_train(file=directory / "best.yaml", workers=0, output=str(tmp_path / "again"))
    assert (run.summary or {})["params_sha256"] == summary["best"]["params_sha256"]
