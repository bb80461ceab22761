"""What somebody meets in a first hour: quick answers, references by name, runs that need nothing more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta.api.evaluate import ScoringProgress
from raymeta.config.build import Built
from raymeta.doctor import Finding
from raymeta.doctor import main as doctor
from raymeta.runs.read import Run, resolve_run
from raymeta.runs.write import RunWriter
from raymeta.train import main as train

SMALL: dict[str, Any] = {"preset": "sinusoid-maml", "model.hidden": [4], "meta_batch_size": 2, "shard_size": 1}
SMALL |= {"steps": 2, "validate_every": 0, "test_episodes": 2}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return raymeta.meta_train(output=str(tmp_path), name="mine", **SMALL)


def test_a_finished_run_is_given_back_as_it_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("nothing is to be computed")

    monkeypatch.setattr(Built, "executor", opened)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert train(["--resume", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert "all 2 steps are done and tested: nothing is left to do" in said
    assert "test mse" in said
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert train(["--resume", str(run.path), "--test_episodes", "3"]) == 1
    assert "nothing is to be computed" in capsys.readouterr().err


def test_a_start_that_failed_or_was_killed_is_not_the_latest(run: Run) -> None:
    folder = run.path.parent
    for status, step in (("failed", 0), ("running", 0)):
        writer = RunWriter(folder / f"2099-{status}", steps=3)
        writer.close()
        info = json.loads((writer.directory / "run.json").read_text())
        (writer.directory / "run.json").write_text(
            json.dumps({**info, "status": status, "step": step, "pid": 2**22 + 1})
        )
        assert resolve_run("latest", folder).id == run.id, status
    (folder / "2099-running" / "metrics.jsonl").write_text('{"step": 1, "attempt": 1, "time": 1.0}\n')
    assert resolve_run("latest", folder).id == "2099-running", "it had begun when it was killed"


def test_a_name_is_a_reference(run: Run) -> None:
    assert resolve_run("mine", run.path.parent).id == run.id


def test_the_first_line_comes_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, builtins\n"
        "real = builtins.__import__\n"
        "def without(name, *rest, **more):\n"
        "    if name == 'torch': sys.exit(7)\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = without\n"
        "from raymeta.train import main\n"
        "main(['--preset', 'sinusoid-maml'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "sinusoid, mlp, maml: reading data and building the model" in done.stderr


def test_the_end_of_a_run_names_dashboard_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"{key}={json.dumps(value)}" for key, value in SMALL.items() if key != "preset"]
    assert train(["--preset", "sinusoid-maml", *settings, "--output", str(tmp_path), "-q"]) == 0
    said = capsys.readouterr().out
    assert f"raymeta dashboard {tmp_path}" in said
    assert f"raymeta report {tmp_path}" in said


def test_a_module_of_the_current_folder_is_found_by_the_script_too(tmp_path: Path) -> None:
    """The script has its own folder on the path, `python -m` the current one."""
    (tmp_path / "nearby.py").write_text(
        "def network(input_shape, num_outputs):\n    raise ValueError('it was found')\n"
    )
    options = "['train', '--model', 'custom', '--model.path', 'nearby:network', '--dry-run', 'preset=sinusoid-maml']"
    code = f"import sys; sys.path[0] = sys.prefix; from raymeta.__main__ import main; sys.exit(main({options}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "it was found" in done.stderr


def test_a_test_that_takes_long_says_how_far_it_is() -> None:
    now = 0.0
    said: list[str] = []
    told = ScoringProgress("test", 600, lambda kind, message, **_: said.append(f"{kind}: {message}"), clock=lambda: now)
    for done in range(60, 601, 60):
        now += 4.0
        told.done(done)
    assert said[0] == "testing: 180 of 600 test episodes scored, 28 s left"
    assert len(said) == 3, "every ten seconds and not at the end"


@pytest.mark.parametrize(("good", "found", "mark"), [(True, True, "ok"), (True, False, "-"), (False, True, "BAD")])
def test_what_is_not_there_and_not_needed_is_not_called_ok(good: bool, found: bool, mark: str) -> None:
    assert Finding("omniglot", good, "", found).mark == mark


def test_the_doctor_calls_no_missing_data_ok(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAYMETA_DATA", str(tmp_path))
    doctor(["--output", str(tmp_path)])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "omniglot" in line)
    assert line.startswith("- ")
