"""Checkpoints in the background: the values of the moment, one at a time, errors that are not lost, nothing torn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import raymeta
from raymeta.adaptation.problem import Learned
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.driver.background import BackgroundStore, Saved
from raymeta.engine.driver.checkpoint import Checkpoint, CheckpointStore
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.loop import train_loop
from raymeta.errors import EnvironmentProblem, NonFiniteGradient
from raymeta.trackers.base import Trackers

SMALL: dict[str, Any] = {
    "model.width": 4,
    "meta_batch_size": 4,
    "shard_size": 2,
    "validate_every": 0,
    "test_episodes": 4,
    "checkpoint_every": 2,
    "steps": 6,
}


@dataclass(frozen=True)
class SlowDisk(CheckpointStore):
    """Writes no checkpoint before it is allowed to."""

    allowed: threading.Event = field(default_factory=threading.Event)
    at_once: list[int] = field(default_factory=list)

    def save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        self.at_once.append(checkpoint.step)
        assert self.allowed.wait(20)
        super().save(checkpoint, best=best)


@dataclass(frozen=True)
class FullDisk(CheckpointStore):
    """Has no space from step `full_from` on."""

    full_from: int = 0

    def save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        if checkpoint.step >= self.full_from:
            raise EnvironmentProblem(f"the checkpoint of step {checkpoint.step} could not be saved: no space")
        super().save(checkpoint, best=best)


def checkpoint(step: int, params: dict[str, torch.Tensor]) -> Checkpoint:
    return Checkpoint(step, Learned(params, {"mean": params["w"] * 2}), {})


def test_what_is_written_are_the_values_of_the_call(tmp_path: Path) -> None:
    store = SlowDisk(tmp_path)
    params = {"w": torch.arange(4.0)}
    with BackgroundStore(store) as background:
        background.save(checkpoint(1, params), best=True)  # and does not wait for the disk
        params["w"].add_(100)
        assert background.has(1)
        assert background.finished() == []
        assert CheckpointStore(tmp_path).names() == []
        store.allowed.set()
    assert background.finished() == [Saved(1, best=True)]
    loaded = store.load("step-00000001")
    assert torch.equal(loaded.learned.params["w"], torch.arange(4.0))
    assert torch.equal(loaded.learned.state["mean"], 2 * torch.arange(4.0))
    assert store.index() == {"last": "step-00000001", "best": "step-00000001"}


def test_at_most_one_is_on_its_way(tmp_path: Path) -> None:
    store = SlowDisk(tmp_path)
    with BackgroundStore(store) as background:
        background.save(checkpoint(1, {"w": torch.zeros(2)}))
        second = threading.Thread(target=background.save, args=(checkpoint(2, {"w": torch.ones(2)}),))
        second.start()
        time.sleep(0.2)
        assert store.at_once == [1]
        assert second.is_alive(), "the second save waits for the first"
        store.allowed.set()
        second.join(20)
    assert store.names() == ["step-00000002", "step-00000001"]


def test_saving_a_step_again_amends_it(tmp_path: Path) -> None:
    with BackgroundStore(CheckpointStore(tmp_path)) as background:
        first = checkpoint(3, {"w": torch.zeros(2)})
        background.save(first)
        background.save(Checkpoint(3, first.learned, {}, {"step": 3, "rank": 0.5}), best=True)
        background.drain()
        assert background.finished() == [Saved(3, best=False)], "told once"
        assert background.index()["best"] == "step-00000003"
    assert CheckpointStore(tmp_path).load("step-00000003").best == {"step": 3, "rank": 0.5}


def train(
    directory: Path, store: Callable[[Path], CheckpointStore] = CheckpointStore, **options: Any
) -> list[tuple[str, Any]]:
    """Events of a run of the loop alone, which raises what the loop raises."""
    config = load_config(overrides={**SMALL, **options}).config
    built = build(config)
    events: list[tuple[str, Any]] = []

    class Recorder(Trackers):
        def event(self, kind: str, message: str, **fields: object) -> None:
            events.append((kind, fields.get("step")))

    executor = built.executor()
    try:
        driver = Driver(built.state(), built.blueprint, executor, built.schedule, Recorder([]))
        train_loop(driver, store(directory))
    finally:
        executor.close()
    return events


def test_every_checkpoint_is_whole_when_training_returns(tmp_path: Path) -> None:
    events = train(tmp_path)
    assert events == [("checkpoint", 2), ("checkpoint", 4), ("checkpoint", 6)]
    store = CheckpointStore(tmp_path)
    assert [store.load(name).step for name in store.names()] == [6, 4, 2]


@pytest.mark.parametrize("full_from", [2, 6])
def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path: Path, full_from: int) -> None:
    """At a later step, or at the end for the last one; what was written before stays."""

    def full(path: Path) -> FullDisk:
        return FullDisk(path, full_from=full_from)

    with pytest.raises(EnvironmentProblem, match=f"step {full_from} could not be saved"):
        train(tmp_path, full)
    assert len(CheckpointStore(tmp_path).names()) == (full_from - 1) // 2


def test_a_failed_run_keeps_its_own_error_and_notes_the_disk(tmp_path: Path) -> None:
    options = {"algorithm.inner_lr": 1e30, "checkpoint_every": 100}
    with pytest.raises(NonFiniteGradient, match="saved as step-0000000"):
        train(tmp_path / "good", **options)
    (name,) = CheckpointStore(tmp_path / "good").names()
    assert CheckpointStore(tmp_path / "good").load(name)

    def fail_twice() -> None:
        with BackgroundStore(FullDisk(tmp_path)) as background:
            background.save(checkpoint(1, {"w": torch.zeros(1)}))
            raise ValueError("the first")

    with pytest.raises(ValueError, match="the first") as caught:
        fail_twice()
    assert "could not be saved" in caught.value.__notes__[0]


def test_parameters_and_best_are_those_of_writing_at_once(tmp_path: Path) -> None:
    options = {**SMALL, "steps": 8, "validate_every": 2, "validation_episodes": 8}
    quick = raymeta.meta_train(output=str(tmp_path / "a"), **options)
    slow = raymeta.meta_train(output=str(tmp_path / "b"), **{**options, "checkpoint_every": 1})
    for key in ("params_sha256", "headline", "scored_checkpoint"):
        assert (quick.summary or {})[key] == (slow.summary or {})[key]
    scored = (quick.summary or {})["scored_checkpoint"]
    assert CheckpointStore(quick.path / "checkpoints").index()["best"] == f"step-{scored:08d}"
