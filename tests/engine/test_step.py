"""A step of several maps is a transaction, draws nothing on the driver, and gives the same bits everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass

import raymeta
from raymeta import MAML, Part
from raymeta.engine.driver.checkpoint import Checkpoint, CheckpointStore
from raymeta.errors import ConfigError, NonFiniteGradient
from raymeta.options import STRICT

OPTIONS: dict[str, Any] = {
    "tasks": "sinusoid", "model": "mlp", "model.hidden": [6], "steps": 4, "meta_batch_size": 6, "shard_size": 2,
    "validate_every": 0, "test_episodes": 2, "checkpoint_every": 1, "keep_checkpoints": 9, "device": "cpu",
}  # fmt: skip
NAMES = ["first", "second", "third", "fourth"]
WRONG_AT = 2
"""The step at which something goes wrong."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FourMaps(MAML):
    """Four maps with an update after each: what one gives for a task goes into the next, and memory counts them."""

    wrong: str = ""
    wrong_in: str = ""

    def step(self, outer: Any, compute: Any, phase: Any) -> dict[str, float]:
        rows, norm = None, 0.0
        for function in NAMES:
            given = {} if rows is None else {"half": outer.params["head.weight"] / 2}
            total = compute(function, given=given, rows=rows)
            rows = total.tasks()
            outer.memory = {"maps": outer.memory.get("maps", torch.zeros(())) + 1, **rows}
            norm = outer.update(total.means())
        if self.wrong == "torch":
            torch.rand(1)
        if self.wrong == "numpy":
            np.random.rand()
        return {"outer/grad_norm": norm}

    def first(self, problem: Any, learned: Any, episode: Any, *, noise: Any, phase: Any) -> Part:
        return self._map("first", problem, learned, episode, noise, phase, episode.support.x.sum())

    def second(self, problem: Any, learned: Any, episode: Any, *, noise: Any, phase: Any, rows: Any) -> Part:
        return self._map("second", problem, learned, episode, noise, phase, rows["mark"])

    def third(self, problem: Any, learned: Any, episode: Any, *, noise: Any, phase: Any, rows: Any) -> Part:
        return self._map("third", problem, learned, episode, noise, phase, rows["mark"])

    def fourth(self, problem: Any, learned: Any, episode: Any, *, noise: Any, phase: Any, rows: Any) -> Part:
        return self._map("fourth", problem, learned, episode, noise, phase, rows["mark"])

    def _map(
        self, function: str, problem: Any, learned: Any, episode: Any, noise: Any, phase: Any, mark: torch.Tensor
    ) -> Part:
        part = self.task_gradient(problem, learned, episode, noise=noise, phase=phase)
        scale = 1 + 0.01 * torch.tanh(mark) + sum(value.mean() for value in learned.given.values())
        if self.wrong == "nan" and self.wrong_in == function and phase.step == WRONG_AT:
            scale = scale * torch.where(episode.support.x.sum() > 0, torch.nan, 1.0)
        return part._replace(sums={n: scale * v for n, v in part.sums.items()}, rows={"mark": mark + 1})

    def contribution(self, problem: Any, learned: Any, episodes: Any, *, phase: Any, **rest: Any) -> Part:
        is_here = self.wrong_in == rest.get("function") and phase.step == WRONG_AT
        if self.wrong == "memory" and is_here and len(episodes.support.x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().contribution(problem, learned, episodes, phase=phase, **rest)


def trained(output: Path, algorithm: FourMaps, **options: Any) -> Any:
    return raymeta.meta_train(algorithm=algorithm, output=str(output), **{**OPTIONS, **options})


def at(output: Path, step: int) -> Checkpoint:
    (run,) = output.glob("2*")
    return CheckpointStore(run / "checkpoints").load(f"step-{step:08d}")


def assert_equal(one: Checkpoint, other: Checkpoint) -> None:
    for mine, theirs in ((one.learned.params, other.learned.params), (one.outer, other.outer)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run."""
    output = tmp_path_factory.mktemp("plain")
    trained(output, FourMaps())
    return output


pytestmark = pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")


def test_what_is_remembered_lies_in_every_checkpoint(plain: Path) -> None:
    last = at(plain, 4)
    assert float(last.outer["|maps"]) == 16
    assert last.outer["|mark"].shape == (6,)
    assert len(set(last.outer["|mark"].tolist())) == 6, "one for each task"


@pytest.mark.parametrize("function", NAMES)
def test_memory_that_runs_short_in_a_map_does_the_step_again(function: str, plain: Path, tmp_path: Path) -> None:
    """With one task at once; had an update of the first try stayed, there would be more maps and other values."""
    run = trained(tmp_path, FourMaps(wrong="memory", wrong_in=function))
    assert [event["kind"] for event in run.events()].count("chunk_halved") == 1
    found, expected = at(tmp_path, 4), at(plain, 4)
    assert float(found.outer["|maps"]) == 16
    for name, value in expected.learned.params.items():
        torch.testing.assert_close(found.learned.params[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("function", NAMES)
def test_a_value_that_is_not_finite_in_a_map_leaves_the_step_before(function: str, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteGradient, match=r"step 2 is not finite.*step 2, index"):
        trained(tmp_path, FourMaps(wrong="nan", wrong_in=function))
    assert_equal(at(tmp_path, 2), at(plain, 2))


@pytest.mark.parametrize("wrong", ["torch", "numpy"])
def test_what_is_drawn_on_the_driver_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FourMaps draws random numbers on the driver"):
        trained(tmp_path, FourMaps(wrong=wrong))


def test_workers_and_blocks_change_no_bits(plain: Path, by_value: None, tmp_path: Path) -> None:
    trained(tmp_path / "flat", FourMaps(), workers=2)
    assert_equal(at(tmp_path / "flat", 4), at(plain, 4))


@pytest.mark.parametrize("done", [1, 3])
def test_a_resumed_run_goes_on_with_what_was_remembered(done: int, plain: Path, tmp_path: Path) -> None:
    trained(tmp_path, FourMaps(), steps=done)
    (run,) = tmp_path.glob("2*")
    raymeta.meta_train(resume=run, steps=4)
    assert_equal(at(tmp_path, 4), at(plain, 4))


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
@pytest.mark.parametrize("chunk_size", [1, 2])
def test_tasks_at_once_change_last_bits_alone(vectorize: str, chunk_size: int, plain: Path, tmp_path: Path) -> None:
    trained(tmp_path, FourMaps(), vectorize=vectorize, chunk_size=chunk_size)
    for name, value in at(plain, 4).learned.params.items():
        torch.testing.assert_close(at(tmp_path, 4).learned.params[name], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(at(tmp_path, 4).outer["|mark"], at(plain, 4).outer["|mark"])


@pytest.mark.slow
def test_a_compiled_map_has_its_values(plain: Path, tmp_path: Path) -> None:
    trained(tmp_path, FourMaps(), compile=True)
    for name, value in at(plain, 4).learned.params.items():
        torch.testing.assert_close(at(tmp_path, 4).learned.params[name], value, rtol=1e-4, atol=1e-6)
