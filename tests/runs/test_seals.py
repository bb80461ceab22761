"""What decides a result is used only as the run wrote it: a digit that was changed is told, never obeyed in silence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta.errors import DataError
from raymeta.evaluate import main as evaluate
from raymeta.runs.read import Run
from raymeta.runs.seals import require_recorded, sealed, unsealed
from raymeta.runs.write import RunWriter
from raymeta.system.remote import Remote
from raymeta.train import main as train

SMALL: dict[str, Any] = {"model.hidden": [8], "meta_batch_size": 2, "shard_size": 1, "steps": 4, "test_episodes": 4}
SMALL |= {"checkpoint_every": 2, "validate_every": 2, "validation_episodes": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return raymeta.meta_train("sinusoid-maml", output=str(tmp_path_factory.mktemp("runs")), **SMALL)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    shutil.copytree(finished.path, tmp_path / finished.id)
    return Run.open(tmp_path / finished.id)


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        ("seed: 0", "seed: 1"),
        ("steps: 4", "steps: 8"),
        ("test_episodes: 4", "test_episodes: 5"),
        ("inner_lr: 0.01", "inner_lr: 0.02"),
        ("preset: sinusoid-maml", "preset: sinusoid-maml # mine"),
    ],
)
def test_one_digit_of_a_configuration_is_refused(
    run: Run, written: str, changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run.path / "config.yaml"
    assert written in file.read_text()
    file.write_text(file.read_text().replace(written, changed))
    commands = [
        lambda: train(["--resume", str(run.path), "-q"]),
        lambda: train(["--resume", str(run.path), "--dry-run"]),
        lambda: evaluate([str(run.path), "--episodes", "2"]),
    ]
    for command in commands:
        assert command() == 3
        told = capsys.readouterr().err
        assert f"{file} was changed since the run wrote it" in told
        assert "put it back" in told
    with pytest.raises(DataError, match="was changed"):
        raymeta.load_run(run.path).model()
    with pytest.raises(DataError, match="was changed"):
        raymeta.meta_test(run, episodes=2)


def test_a_configuration_that_is_gone_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.path / "config.yaml").unlink()
    assert train(["--resume", str(run.path), "-q"]) == 3
    assert "config.yaml cannot be read" in capsys.readouterr().err


def test_the_record_keeps_step_with_allowed_options(run: Run) -> None:
    """Each resumption writes the configuration anew."""
    for steps in ("6", "8"):
        assert train(["--resume", str(run.path), "-q", "--steps", steps, "--tags", f"t{steps}"]) == 0
        assert evaluate([str(run.path), "--episodes", "2"]) == 0
    assert train(["--resume", str(run.path), "-q"]) == 0


def test_a_kill_between_record_and_file_is_no_change(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record knows the new file before it is there, and the old one still."""

    class KilledError(BaseException):
        pass

    def killed(path: Path, data: bytes) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        writer = RunWriter(run.path, steps=4)
        patch.setattr("raymeta.runs.write.write_whole", killed)
        with pytest.raises(KilledError):
            writer.write_config("seed: 1\n")
        writer.close()
    require_recorded(run.path, Run.open(run.path).info["sha256"])


def test_a_run_of_before_has_no_record_and_goes_on(run: Run) -> None:
    info = (run.path / "run.json").read_text()
    (run.path / "run.json").write_text(info.replace('"sha256"', '"unknown"'))
    (run.path / "config.yaml").write_text((run.path / "config.yaml").read_text() + "# touched\n")
    assert train(["--resume", str(run.path), "-q", "--steps", "6"]) == 0


def test_other_files_can_be_recorded_too(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", steps=1)
    writer.write_decisive("data.json", '{"classes": ["a", "b"]}\n')
    writer.close()
    recorded = Run.open(tmp_path / "run").info["sha256"]
    require_recorded(tmp_path / "run", recorded)
    (tmp_path / "run" / "data.json").write_text('{"classes": ["a", "c"]}\n')
    with pytest.raises(DataError, match=r"data\.json was changed"):
        require_recorded(tmp_path / "run", recorded)


def test_a_record_leads_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/passwd cannot be read"):
        require_recorded(tmp_path, {"/etc/passwd": ["0"]})


@pytest.mark.parametrize("value", [{"a": 1}, {"a": [1.5, None, "ü"], "b": {"c": True}}, {"a": float("nan")}, {}])
def test_a_seal_knows_what_was_sealed(value: dict[str, Any]) -> None:
    assert unsealed(sealed(value)).keys() == value.keys()
    with pytest.raises(ValueError, match="was changed"):
        unsealed(sealed(value) | {"a": 2})
    with pytest.raises(ValueError, match="was changed"):
        unsealed(sealed(value) | {"new": 2})


def test_in_a_mirror_a_run_always_knows_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the moment at which the driver dies, what was copied until then can be resumed."""
    store, seen = tmp_path / "store", []
    write = Remote.write

    def watched(self: Remote, name: str, data: Any) -> None:
        write(self, name, data)
        for info in store.glob("*/run.json"):
            require_recorded(info.parent, Run.open(info.parent).info["sha256"])
            seen.append(name)

    monkeypatch.setattr(Remote, "write", watched)
    mirror = store.as_uri()
    run = raymeta.meta_train("sinusoid-maml", output=str(tmp_path / "runs"), mirror=mirror, **SMALL)
    for steps in (6, 8):
        raymeta.meta_train(resume=run.path, steps=steps, mirror=mirror)
    assert {"run.json", "config.yaml", "data.json"} <= set(seen)


def test_one_letter_of_what_the_run_knows_of_its_data_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    file = run.path / "data.json"
    file.write_text(file.read_text().replace("sinusoid", "sinusoie", 1))
    assert train(["--resume", str(run.path), "-q"]) == 3
    assert f"{file} was changed since the run wrote it" in capsys.readouterr().err
    assert evaluate([str(run.path), "--episodes", "2"]) == 3
