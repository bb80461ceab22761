"""Checkpoints: nothing that is damaged or missing goes unnoticed, and an index that is lost is rebuilt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from raymeta.algorithms.problem import Learned
from raymeta.engine.checkpoint import Checkpoint, CheckpointStore
from raymeta.errors import CheckpointError


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
    before = json.loads(index.read_text())
    index.unlink() if content is None else index.write_text(content)
    assert store.index() == before == {"last": "step-00000006", "best": "step-00000004"}
    checkpoint, problems = store.load_best()
    assert checkpoint is not None
    assert (checkpoint.step, problems) == (4, [])
    store.save(Checkpoint(8, Learned({"w": torch.zeros(3)}, {}), best=best(4)))
    assert json.loads(index.read_text()) == {"last": "step-00000008", "best": "step-00000004"}


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
