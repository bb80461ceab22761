"""Sweeps on a real Ray: every trial an ordinary run, nothing repeated, failures told, the best one repeatable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import raymeta
from raymeta.sweeps.load import load_sweep
from raymeta.sweeps.tuner import Outcome, new_directory, run_sweep

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
            rows = [[r["step"], r["val/accuracy"], r["val/accuracy_ci95"]] for r in run.metrics() if "val/accuracy" in r]
            assert reports == rows
            assert raymeta.meta_test(run, episodes=4).summary.episodes == 4


def test_best_yaml_repeats_the_best_trial_as_it_is(swept: Outcome, tmp_path: Path) -> None:
    best = swept.summary["best"]
    finished = [t for t in swept.summary["trials"] if t["status"] == "finished"]
    assert best["value"] == max(trial["value"] for trial in finished)
    run = raymeta.meta_train(file=swept.directory / "best.yaml", output=str(tmp_path))
    assert (run.summary or {})["params_sha256"] == best["params_sha256"]
    assert (run.summary or {})["headline"] == best["headline"]
    assert "results" == yaml.safe_load((swept.directory / "best.yaml").read_text())["output"]


def test_a_sweep_that_ended_is_not_run_again(swept: Outcome, local_ray: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in (swept.directory / "trials").rglob("*") if path.is_file()}
    again = run_sweep(swept.directory, mode="plain", quiet=True)
    after = {path: path.stat().st_mtime_ns for path in (swept.directory / "trials").rglob("*") if path.is_file()}
    assert before == after
    assert again.summary["trials"] == swept.summary["trials"]
