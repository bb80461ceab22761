"""What commands share: a stdout that is closed, full or gone, and warnings of our own."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from raymeta.errors import DataError, RaymetaWarning
from raymeta.runs.read import Run
from raymeta.system.command_line import run_command
from raymeta.trackers.base import Trackers
from raymeta.trackers.python_warnings import PythonWarnings
from raymeta.train import main as train

TRAIN = [sys.executable, "-m", "raymeta", "train", "--preset", "sinusoid-maml", "steps=2", "model.hidden=[4]"]
TRAIN += ["meta_batch_size=2", "test_episodes=2", "validate_every=0"]


def shell(command: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    line = " ".join(f"'{word}'" for word in command) + f" {redirection}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "<&- >&- 2>&-", pytest.param(">/dev/full", id="full")])
def test_a_good_run_stays_good_without_a_stdout(redirection: str, tmp_path: Path) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = shell([*TRAIN, "--output", str(tmp_path)], redirection)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "AttributeError" not in done.stderr
    (run,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    if "full" in redirection:
        assert f"could not be printed (No space left on device); it is in {run}" in done.stderr
    for path in run.rglob("*.jsonl"):  # nothing that was meant for stdout got into a file
        assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_result_that_is_only_printed_and_lost_is_an_error() -> None:
    done = shell([sys.executable, "-m", "raymeta.config", "schema"], ">/dev/full")
    assert done.returncode == 3
    assert "stdout: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_our_warnings_read_like_errors_and_are_told_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        for _ in range(2):
            warnings.warn("the best is damaged", RaymetaWarning, stacklevel=1)
        raise DataError("a \x1b[2J file")

    assert run_command("evaluate", command, verbose=False) == 3
    error = capsys.readouterr().err
    assert error.splitlines() == [
        *["raymeta evaluate: warning: the best is damaged"] * 2,
        "raymeta evaluate: a [2J file",
    ]


INTERRUPTED = """
import sys
from raymeta.system.command_line import run_command

def command():
    try:
        exec("raise KeyboardInterrupt")  # as one that comes while a dataclass is imported
    except KeyboardInterrupt:
        return 130

sys.exit(run_command("try", command, verbose=False))
"""


def test_an_interrupt_that_was_handled_leaves_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 130


class Interrupts:
    """An interrupt that falls into the making of a class, which Python before 3.12 makes a RuntimeError."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_that_python_wraps_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        type("Imported", (), {"field": Interrupts()})
        return 0

    assert run_command("try", command, verbose=False) == 130
    assert capsys.readouterr().err == "raymeta try: interrupted\n"


def test_an_interrupt_that_python_wraps_stops_a_run_with_everything_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "raymeta.api.final_test.evaluate_learned", lambda *_, **__: type("T", (), {"field": Interrupts()})
    )
    options = ["steps=2", "model.hidden=[4]", "meta_batch_size=2", "validate_every=0", "test_episodes=2"]
    command = ["--preset", "sinusoid-maml", *options, "-q", "--output", str(tmp_path)]
    assert train(command) == 130
    (run,) = (Run.open(path) for path in tmp_path.iterdir() if path.is_dir())
    assert run.status == "stopped"
    monkeypatch.undo()
    assert train(["--resume", str(run.path), "-q"]) == 0


def test_an_error_that_is_its_own_cause_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        error, other = ValueError("the disk is gone"), OSError()
        error.__cause__, other.__cause__ = other, error
        raise error

    assert run_command("try", command, verbose=False) == 1
    assert "the disk is gone" in capsys.readouterr().err


def test_an_interrupt_that_python_wraps_inside_a_tracker_is_one() -> None:
    class Importing(PythonWarnings):
        def event(self, kind: str, message: str, **fields: object) -> None:
            type("Imported", (), {"field": Interrupts()})

        def close(self) -> None:
            self.event("", "")

    for tell in (lambda trackers: trackers.event("note", "text"), lambda trackers: trackers.close()):
        with pytest.raises(KeyboardInterrupt):
            tell(Trackers([Importing()]))


def test_an_error_that_only_happened_beside_an_interrupt_is_told() -> None:
    def command() -> int:
        try:
            raise KeyboardInterrupt
        finally:
            raise ValueError("the disk is gone")

    assert run_command("try", command, verbose=False) == 1
