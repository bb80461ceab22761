"""What `raymeta train` says besides its progress: notes, warnings, and nothing of that kind twice or in silence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import raymeta
from raymeta import __main__ as entry
from raymeta.errors import RaymetaWarning
from raymeta.runs.read import Run
from raymeta.train import main

TINY = ["model.width=4", "meta_batch_size=2", "steps=1", "test_episodes=2", "validate_every=0"]
SWITCH = ["--preset", "glyphs-5w1s-maml", "--algorithm", "protonet"]
NOTE = "switches algorithm from maml to protonet"


@pytest.mark.parametrize("stop", ["--dry-run", "--print-config"])
def test_notes_and_warnings_are_told_without_a_run(stop: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWITCH, "--address", "auto", stop]) == 0
    said = capsys.readouterr()
    assert f"note: command line --algorithm {NOTE}" in said.err
    assert "warning: address without effect, as workers is 0" in said.err
    if stop == "--print-config":
        assert yaml.safe_load(said.out)["algorithm"]["name"] == "protonet"
    assert main([*SWITCH, stop, "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_options_of_workers_without_workers_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    given = "--cpus_per_worker 3 --placement spread --aggregate node --shard_timeout 9 --worker_wait 5"
    assert main([*given.split(), "--dry-run"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert all(name in line for name in ("cpus_per_worker", "placement", "aggregate", "shard_timeout", "worker_wait"))


def test_quiet_leaves_out_notes_and_keeps_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWITCH, *TINY, "--output", str(tmp_path), "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*TINY, "--output", str(tmp_path), "--address", "auto", "-q"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "warning: address without effect" in line


def test_python_callers_are_told_and_the_run_remembers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"model.width": 4, "meta_batch_size": 2, "test_episodes": 2, "validate_every": 0}
    with pytest.warns(RaymetaWarning, match=NOTE):
        run = raymeta.meta_train("glyphs-5w1s-maml", output=str(tmp_path), algorithm="protonet", steps=1, **options)
    assert [event["kind"] for event in Run.open(run.path).events()][:4] == ["note", "vectorize", "compile", "started"]


def test_an_interrupt_while_a_command_is_loaded_is_calm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing torch takes seconds, in which people change their mind."""

    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "import_module", interrupted)
    assert entry.main(["train"]) == 130
    assert capsys.readouterr().err == "raymeta train: interrupted\n"


def test_a_run_that_its_time_limit_ended_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "--preset",
        "sinusoid-maml",
        "model.hidden=[4]",
        "meta_batch_size=2",
        "test_episodes=2",
        "validate_every=0",
    ]
    assert main([*small, "--time-limit", "0.5s", "--steps", "1000000", "--output", str(tmp_path), "-q"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"stopped by time limit at \d+ of 1,000,000: raymeta train --resume .* goes on", told)
