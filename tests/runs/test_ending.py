"""How a run ended is said in one way: a run that its time limit stopped does not read as one with all of its steps."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest

from raymeta.runs.__main__ import main
from raymeta.runs.ending import ending
from raymeta.runs.read import Run
from raymeta.runs.write import Headline, RunWriter, new_run_directory


def run_of(output: Path, status: Literal["finished", "stopped", "failed"], reason: str, *, step: int = 71) -> Run:
    writer = RunWriter(new_run_directory(output, "a", datetime(2026, 11, 20, 9, 15)), steps=150)
    writer.write_config("algorithm: {name: maml}\n")
    writer.step(step, {})
    writer.write_summary(Headline("accuracy", 0.5, 0.1, 9, "test", "higher"), params_sha256="", tasks_per_s=1, wall_s=1)
    writer.finish(status, reason)
    writer.close()
    return Run.open(writer.directory)


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        ("finished", "time_limit", "stopped by time limit at 71 of 150"),
        ("finished", "steps", "finished"),
        ("stopped", "signal", "stopped by a signal at 71 of 150"),
        ("stopped", "stopped early by the sweep", "stopped at 71 of 150"),
        ("failed", "time_limit", "failed at 71 of 150"),
        ("lost", "", "lost at 71 of 150"),
        ("running", "", "running at 71 of 150"),
    ],
)
def test_every_status_has_its_words(status: str, reason: str, text: str) -> None:
    assert ending(status, {"reason": reason, "step": 71, "steps": 150}).text == text


def test_a_damaged_record_has_an_ending() -> None:
    assert ending("lost", {}).text == "lost at 0 of 0"


def test_lists_comparisons_and_details_tell_the_time_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, long = run_of(tmp_path, "finished", "time_limit"), run_of(tmp_path, "finished", "steps", step=150)
    assert main(["ls", str(tmp_path)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "stopped by time limit" in rows[short.id]
    assert "71/150" in rows[short.id]
    assert "time limit" not in rows[long.id]
    assert main(["show", str(short.path)]) == 0
    shown = capsys.readouterr().out
    assert "stopped by time limit at 71 of 150" in shown
    assert "--resume" in shown
    assert "raymeta evaluate" in shown
    assert main(["compare", str(short.path), str(long.path)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "stopped by time limit  71/150" in rows[short.id]
    assert "finished               150/150" in rows[long.id]
    assert main(["compare", str(short.path), str(long.path), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["runs"][0]
    assert (first["ending"], first["step"], first["steps"]) == ("stopped by time limit", 71, 150)
