"""`--profile`: phases that add up to the step, a trace with named ranges, and not a bit of a result changed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from raymeta.engine.driver.profile import divided
from raymeta.engine.stopwatch import CHECKPOINT, EPISODES, GRADIENT, PHASES, REST, TRANSFER, VALIDATION, WORK, Stopwatch
from raymeta.runs.read import Run
from raymeta.train import main

OPTIONS = [
    "model.width=4", "meta_batch_size=4", "shard_size=2", "steps=9", "validate_every=4", "checkpoint_every=3",
    "validation_episodes=4", "test_episodes=2", "tasks.train_classes=20", "tasks.val_classes=8", "tasks.test_classes=8",
]  # fmt: skip


def train(output: Path, *options: str) -> Run:
    assert main([*OPTIONS, *options, "-q", "--output", str(output)]) == 0
    (folder,) = (path for path in output.iterdir() if path.is_dir())
    return Run.open(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of all these tests, without a profile."""
    return train(tmp_path_factory.mktemp("plain"))


def check(run: Run, plain: Run, workers: int) -> dict[str, Any]:
    """What holds for any profile of the run; returns its table."""
    assert run.summary is not None
    assert plain.summary is not None
    assert run.summary["params_sha256"] == plain.summary["params_sha256"]
    table: dict[str, Any] = json.loads((run.path / "profile.json").read_text())
    phases = table["phases_s"]
    assert list(phases) == list(PHASES)
    assert sum(phases.values()) == pytest.approx(table["step_s"])
    assert min(phases.values()) >= 0
    # The clock of the rows, another one: `time/step_s` leaves out what follows the step.
    rows = run.metrics()
    counted = [row for row in rows if "time/step_s" in row][1 + 2 :][-table["steps"] :]
    assert table["step_s"] >= sum(row["time/step_s"] for row in counted) / len(counted)
    assert phases[REST] < 0.5 * table["step_s"]
    for name in (EPISODES, GRADIENT, CHECKPOINT, VALIDATION):
        assert phases[name] > 0, name
    assert (table["counted"], table["steps"], table["workers"]) == ("plain", 6, workers)  # of 9: 1 first, 2 traced
    trace = json.loads((run.path / "trace.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    assert {"step 3", "step 4", "fold", "outer step", "metrics"} <= set(names)
    assert "step 5" not in names
    assert (EPISODES in names) == (workers == 0)
    return table


def test_in_this_process(plain: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = check(train(tmp_path, "--profile", "2"), plain, 0)
    said = capsys.readouterr().out
    assert all(name in said for name in ("a step takes", *PHASES))
    assert table["phases_s"][GRADIENT] > 0.2 * table["step_s"]


def test_on_ray_workers(plain: Run, local_ray: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = check(train(tmp_path, "--profile", "2", "--workers", "2"), plain, 2)
    assert table["worker_phases_s"][GRADIENT] > 0
    assert "2 workers together" in capsys.readouterr().out


def test_a_short_run_still_has_a_table(tmp_path: Path) -> None:
    run = train(tmp_path, "--profile", "steps=3", "validate_every=0")
    table = json.loads((run.path / "profile.json").read_text())
    assert (table["counted"], table["steps"]) == ("plain", 1)  # the second of three


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OPTIONS, "--profile", "many", "--output", str(tmp_path)]) == 2
    assert "--profile many is no number of steps" in capsys.readouterr().err


def test_phases_are_exclusive_and_add_up() -> None:
    phases = Stopwatch()
    phases.lap()
    began = time.perf_counter()
    with phases("outside"):
        with phases("inside"):
            time.sleep(0.02)
        time.sleep(0.01)
    with pytest.raises(ValueError, match="left"), phases("failed"):
        raise ValueError("left")
    seconds, passed = phases.lap(), time.perf_counter() - began
    assert sum(seconds.values()) == pytest.approx(passed, abs=1e-3)
    assert seconds["inside"] >= 0.02
    assert 0.01 <= seconds["outside"] < passed - 0.02 + 1e-3
    assert set(phases.lap()) == {REST}, "after an error, too"


@pytest.mark.parametrize(
    ("work", "workers", "expected"),
    [
        ({EPISODES: 1.0, GRADIENT: 5.0, TRANSFER: 0.5}, 1, {EPISODES: 1, GRADIENT: 5, TRANSFER: 2}),
        ({EPISODES: 2.0, GRADIENT: 10.0}, 2, {EPISODES: 1, GRADIENT: 5, TRANSFER: 2}),
        ({EPISODES: 4.0, GRADIENT: 12.0}, 1, {EPISODES: 2, GRADIENT: 6, TRANSFER: 0}),  # while the driver did not wait
        ({}, 1, {EPISODES: 0, GRADIENT: 0, TRANSFER: 8}),
    ],
)
def test_the_wait_is_divided_by_what_workers_did(
    work: dict[str, float], workers: int, expected: dict[str, float]
) -> None:
    got = divided({WORK: 8.0, REST: 1.0}, work, workers)
    assert got == pytest.approx({**expected, REST: 1.0})
