"""Checkpoints: nothing that is damaged or missing goes unnoticed, and an index that is lost is rebuilt."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from raymeta.adaptation.problem import Learned
from raymeta.engine.driver.checkpoint import INDEX, Checkpoint, CheckpointStore
from raymeta.errors import CheckpointError
from raymeta.runs.seals import unsealed


def best(step: int) -> dict[str, Any]:
    return {"step": step, "name": "accuracy", "value": 0.5, "rank": 0.5}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """Checkpoints of steps 2, 4 and 6, of which 4 is the best."""
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in (2, 4, 6):
        learned = Learned({"w": torch.full((3,), float(step))}, {})
        store.save(Checkpoint(step, learned, best=best(min(step, 4))), best=step == 4)
    return CheckpointStore(store.directory)


@pytest.mark.parametrize("file", ["state.json", "params.safetensors", "outer.safetensors"])
def test_a_checkpoint_that_lacks_a_file_is_told(store: CheckpointStore, file: str) -> None:
    (store.directory / "step-00000006" / file).unlink()
    checkpoint, (problem,) = store.load_last()
    assert checkpoint is not None
    assert checkpoint.step == 4
    assert "step-00000006" in problem
    assert file in problem


@pytest.mark.parametrize("content", ["[]", '"text"', "{}", '{"sha256": 3}', '{"step": null}', "null"])
def test_a_state_that_is_not_ours_is_told(store: CheckpointStore, content: str) -> None:
    (store.directory / "step-00000006" / "state.json").write_text(content)
    checkpoint, (problem,) = store.load_last()
    assert checkpoint is not None
    assert checkpoint.step == 4
    assert "step-00000006" in problem


def test_a_newest_checkpoint_that_is_gone_is_told(store: CheckpointStore) -> None:
    shutil.rmtree(store.directory / "step-00000006")
    checkpoint, (problem,) = store.load_last()
    assert checkpoint is not None
    assert checkpoint.step == 4
    assert "step-00000006 is missing" in problem


def test_with_all_checkpoints_gone_nothing_is_guessed(store: CheckpointStore) -> None:
    for path in store.directory.glob("step-*"):
        shutil.rmtree(path)
    with pytest.raises(CheckpointError, match="step-00000006 is missing"):
        store.load_last()


@pytest.mark.parametrize("content", [None, "", "{torn", "[]", "{}", "3"])
def test_a_lost_index_is_rebuilt(store: CheckpointStore, content: str | None) -> None:
    index = store.directory / "index.json"
    before = store.index()
    index.unlink() if content is None else index.write_text(content)
    assert store.index() == before == {"last": "step-00000006", "best": "step-00000004"}
    checkpoint, problems = store.load_best()
    assert checkpoint is not None
    assert checkpoint.step == 4
    assert [INDEX in problem for problem in problems] == [True] * (content is not None)
    store.save(Checkpoint(8, Learned({"w": torch.zeros(3)}, {}), best=best(4)))
    assert unsealed(json.loads(index.read_text())) == {"last": "step-00000008", "best": "step-00000004"}


@pytest.mark.parametrize("name", ["step-00000002", "step-00000009", "../elsewhere"])
def test_an_index_that_was_changed_decides_nothing_in_silence(store: CheckpointStore, name: str) -> None:
    index = store.directory / INDEX
    index.write_text(index.read_text().replace("step-00000004", name))
    checkpoint, (problem,) = store.load_best()
    assert checkpoint is not None
    assert checkpoint.step == 4
    assert str(index) in problem


@pytest.mark.parametrize(
    ("written", "changed"), [('"step": 6', '"step": 5'), ('"rank": 0.5', '"rank": 0.6'), ('"tasks": 0', '"tasks": 1')]
)
def test_one_digit_of_a_state_is_told(store: CheckpointStore, written: str, changed: str) -> None:
    state = store.directory / "step-00000006" / "state.json"
    assert written in state.read_text()
    state.write_text(state.read_text().replace(written, changed))
    checkpoint, (problem,) = store.load_last()
    assert checkpoint is not None
    assert checkpoint.step == 4
    assert "was changed since it was written" in problem


def test_checkpoints_of_before_have_no_seals_and_are_read(store: CheckpointStore) -> None:
    for path in store.directory.rglob("*.json"):
        path.write_text(json.dumps(unsealed(json.loads(path.read_text()))))
    checkpoint, problems = store.load_best()
    assert checkpoint is not None
    assert (checkpoint.step, problems) == (4, [])


def test_not_finite_numbers_keep_a_seal(store: CheckpointStore) -> None:
    """JSON has none: null stands in their place."""
    store.save(Checkpoint(8, Learned({"w": torch.zeros(3)}, {}), best={**best(4), "value": math.nan}))
    checkpoint, problems = store.load_last()
    assert checkpoint is not None
    assert (checkpoint.step, problems) == (8, [])


def test_a_checkpoint_under_another_name_is_none(store: CheckpointStore) -> None:
    shutil.copytree(store.directory / "step-00000002", store.directory / "step-00000008")
    checkpoint, (problem,) = store.load_last()
    assert checkpoint is not None
    assert checkpoint.step == 6
    assert "step-00000008" in problem


@pytest.mark.parametrize("size", [0, 7, 8, 2**35])
def test_tensors_that_are_none_are_told_whatever_their_size(store: CheckpointStore, size: int) -> None:
    path = store.directory / "step-00000006" / "params.safetensors"
    path.write_bytes(b"")
    os.truncate(path, size)
    checkpoint, (problem,) = store.load_last()
    assert checkpoint is not None
    assert checkpoint.step == 4
    assert "params.safetensors is damaged" in problem


def test_a_checkpoint_validated_after_it_was_saved_knows_its_score(tmp_path: Path) -> None:
    store, learned = CheckpointStore(tmp_path), Learned({"w": torch.zeros(3)}, {})
    store.save(Checkpoint(5, learned))
    store.save(Checkpoint(5, learned, best=best(5)), best=True)
    assert store.load("step-00000005").best == best(5)


def test_only_what_has_a_checkpoints_name_is_one_and_steps_are_numbers(store: CheckpointStore) -> None:
    shutil.copytree(store.directory / "step-00000002", store.directory / "step-00000009-copy")
    for step in (99_999_999, 100_000_000):
        store.save(Checkpoint(step, Learned({"w": torch.zeros(3)}, {})))
    assert store.names()[:2] == ["step-100000000", "step-99999999"]
    assert (store.directory / "step-00000009-copy").is_dir()
