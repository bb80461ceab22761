"""Fewer tasks at once: the same sums, the same bits on any number of workers, and by itself where memory ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from recorded import replace_config

import raymeta
from raymeta import MAML
from raymeta.adaptation.problem import Part
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.driver.memory import Chunks, Halving
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.job import Job
from raymeta.engine.worker.memory_errors import is_memory_error
from raymeta.errors import OutOfMemory, RaymetaWarning
from raymeta.keys import Shard
from raymeta.options import STRICT
from raymeta.runs.read import Run
from raymeta.tree import FloatArray

SMALL: dict[str, Any] = {
    "model.hidden": [8],
    "meta_batch_size": 16,
    "shard_size": 8,
    "validate_every": 0,
    "validation_episodes": 16,
    "test_episodes": 16,
    "steps": 6,
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Hungry(MAML):
    """MAML on a device whose memory holds so many tasks from a step on, and whose sums show how many there were."""

    gradients: int = 100
    scores_of: int = 100
    from_step: int = 0

    def contribution(self, problem: Any, learned: Any, episodes: Any, *, phase: Any, **rest: Any) -> Part:
        if phase.step >= self.from_step:
            _require(len(episodes.support.x), self.gradients)
        part = super().contribution(problem, learned, episodes, phase=phase, **rest)
        share = 1 + 1e-3 * len(episodes.support.x)
        return part._replace(sums={name: share * value for name, value in part.sums.items()})

    def scores(self, problem: Any, learned: Any, episodes: Any, *, noise: Any, phase: Any) -> Any:
        _require(len(episodes.support.x), self.scores_of)
        return super().scores(problem, learned, episodes, noise=noise, phase=phase)


def _require(num_tasks: int, most: int) -> None:
    if num_tasks > most:
        raise torch.OutOfMemoryError(f"CUDA out of memory: {num_tasks} tasks, where {most} fit")


def train(folder: Path, **options: Any) -> Run:
    return raymeta.meta_train("sinusoid-maml", output=str(folder), **{**SMALL, **options})


def halvings(run: Run) -> list[tuple[str, int, int]]:
    told = [event for event in run.events() if event["kind"] == "chunk_halved"]
    return [(event["job"], event["since_step"], event["chunk_size"]) for event in told]


def scored(run: Run) -> list[float]:
    values: list[float] = json.loads((run.path / "eval" / "test.json").read_text())["values"]
    return values


def sha256(run: Run) -> str:
    return str((run.summary or {})["params_sha256"])


def shard_sum(options: dict[str, Any]) -> FloatArray:
    config = load_config(preset="sinusoid-maml", overrides={**SMALL, **options}).config
    built = build(config)
    executor = LocalExecutor(built.blueprint)
    job = Job("gradient", chunk_size=config.chunk_size)
    try:
        ((_, result),) = executor.map(job, built.blueprint.payload(built.initial), [Shard(0, "train", 3, 0, 7)])
    finally:
        executor.close()
    vector: FloatArray = result.vector
    return vector


@pytest.mark.parametrize("options", [{}, {"algorithm": "reptile"}, {"vectorize": "loop"}], ids=str)
def test_chunks_of_any_size_have_the_same_sum(options: dict[str, Any]) -> None:
    whole = shard_sum(options)
    for size in (1, 2, 3, 7, 100):
        chunked = shard_sum({**options, "chunk_size": size})
        assert np.allclose(chunked, whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())
    assert np.array_equal(whole, shard_sum({**options, "chunk_size": 7})), "one chunk is the whole shard"


def test_scores_do_not_depend_on_chunks_but_for_the_last_bits(tmp_path: Path) -> None:
    whole, chunked = (scored(train(tmp_path, chunk_size=size, steps=2)) for size in (8, 3))
    assert np.allclose(whole, chunked, rtol=1e-3)


def test_chunks_have_equal_bits_on_any_number_of_workers(local_ray: Any, tmp_path: Path) -> None:
    runs = [train(tmp_path, chunk_size=3, workers=workers) for workers in (0, 2)]
    assert sha256(runs[0]) == sha256(runs[1])


def test_memory_that_ends_halves_once_for_the_whole_run(by_value: None, tmp_path: Path) -> None:
    hungry = Hungry(inner_lr=0.01, gradients=4, from_step=3)
    with pytest.warns(RaymetaWarning, match="out of memory: from step 3 on, 4 tasks are computed at once"):
        runs = [train(tmp_path, algorithm=hungry, workers=workers) for workers in (0, 2)]
    assert [halvings(run) for run in runs] == [[("gradient", 3, 4)]] * 2
    assert sha256(runs[0]) == sha256(runs[1])
    state = json.loads((runs[0].path / "checkpoints" / "step-00000006" / "state.json").read_text())
    assert state["halvings"] == [{"step": 3, "job": "gradient", "chunk_size": 4}]
    assert (runs[0].path / "checkpoints" / "step-00000003").is_dir(), "saved before a bit depends on it"
    whole, small = (train(tmp_path, algorithm=Hungry(inner_lr=0.01), chunk_size=size) for size in (8, 4))
    assert len({sha256(run) for run in (runs[0], whole, small)}) == 3, "three steps of each"


def test_what_was_recorded_makes_the_bits_again(tmp_path: Path) -> None:
    """A resumed run keeps to it with memory for everything, and from before the first step with it."""
    hungry = Hungry(inner_lr=0.01, gradients=4, from_step=3)
    with pytest.warns(RaymetaWarning, match="out of memory"):
        expected = sha256(train(tmp_path, algorithm=hungry))
    with pytest.warns(RaymetaWarning, match="out of memory"):
        run = train(tmp_path, algorithm=hungry, steps=4)
    shutil.rmtree(run.path / "checkpoints" / "step-00000004")
    replace_config(run.path, (run.path / "config.yaml").read_text().replace("gradients: 4", "gradients: 100"))
    with pytest.warns(RaymetaWarning, match="step-00000004 is missing.*the checkpoint of step 3 is used"):
        resumed = raymeta.meta_train(resume=run.path, steps=6)
    assert sha256(resumed) == expected
    assert halvings(resumed) == [("gradient", 3, 4)], "nothing new"


def test_it_halves_again_until_it_fits(tmp_path: Path) -> None:
    with pytest.warns(RaymetaWarning, match="1 task is computed at once"):
        run = train(tmp_path, algorithm=Hungry(inner_lr=0.01, gradients=1))
    assert halvings(run) == [("gradient", 0, 4), ("gradient", 0, 2), ("gradient", 0, 1)]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_scores_are_halved_on_their_own(workers: int, by_value: None, tmp_path: Path) -> None:
    hungry = Hungry(inner_lr=0.01, scores_of=4)
    with pytest.warns(RaymetaWarning, match="from step 2 on, 4 tasks are computed at once for scores"):
        run = train(tmp_path, algorithm=hungry, validate_every=2, checkpoint_every=4, workers=workers)
    assert halvings(run) == [("scores", 2, 4)], "validations and the test keep to it"
    assert sha256(run) == sha256(train(tmp_path, algorithm=Hungry(inner_lr=0.01))), "meta-gradients are not concerned"
    with pytest.warns(RaymetaWarning, match="for scores"):
        test = raymeta.meta_test(run, episodes=16)
    assert [float(v) for v in test.scores.main[:, -1]] == scored(run)


@pytest.mark.parametrize("options", [{"algorithm": Hungry(gradients=0)}, {"vectorize": "loop"}], ids=["vmap", "loop"])
def test_one_task_too_many_ends_the_run_with_what_to_do(options: dict[str, Any], tmp_path: Path) -> None:
    options = {"algorithm": Hungry(gradients=4 if "vectorize" in options else 0), **options}
    with pytest.raises(OutOfMemory, match=r"for 1 task at once .*checkpoint_inner_steps: true, first_order: true"):
        train(tmp_path, **options)


def test_what_counts_as_out_of_memory() -> None:
    assert is_memory_error(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_memory_error(MemoryError())
    assert not is_memory_error(RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_memory_error(caught.value), "what torch says of the host's memory"


def test_a_step_keeps_the_size_it_had() -> None:
    chunks = Chunks(8)
    chunks.halve("gradient", 5, OutOfMemory("", 8))
    chunks.halve("gradient", 9, OutOfMemory("", 4))
    assert [chunks.at("gradient", step) for step in (0, 4, 5, 8, 9, 100)] == [8, 8, 4, 4, 2, 2]
    assert chunks.at("scores", 9) == 8
    assert chunks.halvings[0] == Halving(5, "gradient", 4)
    with pytest.raises(OutOfMemory):
        chunks.halve("scores", 0, OutOfMemory("", 1))
