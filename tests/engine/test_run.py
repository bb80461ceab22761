"""Whole runs: the same bits for any number of workers, after a kill, and after stop and resume."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

import raymeta
from raymeta.api.train import Training
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.driver.checkpoint import Checkpoint, CheckpointStore
from raymeta.engine.driver.driver import Driver
from raymeta.engine.driver.loop import train_loop
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.executors.placement import PoolOptions
from raymeta.engine.executors.ray_actors import RayExecutor
from raymeta.errors import EnvironmentProblem
from raymeta.trackers.base import Trackers
from raymeta.tree import params_sha256

SMALL: dict[str, Any] = {
    "model.width": 8,
    "meta_batch_size": 8,
    "shard_size": 2,
    "validate_every": 0,
    "test_episodes": 8,
    "checkpoint_every": 5,
    "steps": 20,
}


def bits(config: Any, executor: str | int, directory: Path) -> tuple[str, list[Any]]:
    """SHA-256 of the parameters after training, and the workers' rows."""
    built = build(config)
    workers = int(executor)
    pool = (
        LocalExecutor(built.blueprint) if workers == 0 else RayExecutor(built.blueprint, PoolOptions(workers=workers))
    )
    state = built.state()
    try:
        train_loop(Driver(state, built.blueprint, pool, built.schedule, Trackers([])), CheckpointStore(directory))
        return params_sha256(state.outer.learned.params), pool.workers()
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("tasks", "numbers"), [("glyphs", (1, 3)), pytest.param("omniglot", (2,), marks=pytest.mark.slow)]
)
def test_bits_are_equal_for_any_number_of_workers(
    tasks: str, numbers: tuple[int, ...], local_ray: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    options: dict[str, Any] = dict(SMALL)
    preset = "glyphs-5w1s-maml"
    if tasks == "omniglot":
        preset, options["tasks.root"] = "omniglot-5w1s-maml", str(request.getfixturevalue("omniglot_root"))
    config = load_config(preset=preset, overrides=options).config
    expected, _ = bits(config, 0, tmp_path / "0")
    for workers in numbers:
        got, rows = bits(config, workers, tmp_path / str(workers))
        assert got == expected
        assert len(rows) == workers
        assert all(row.tasks > 0 for row in rows), "every worker computed shards"
        assert sum(row.tasks for row in rows) == 20 * 8


def test_a_checkpoint_on_the_disk_finds_the_rows_of_all_steps_before_it_there(tmp_path: Path) -> None:
    """However the process ends, a run that goes on from it has no gap."""

    class Listener:
        told: ClassVar[list[int]] = []

        def step(self, step: int, metrics: Any) -> None:
            self.told.append(step)

        def event(self, kind: str, message: str, **fields: object) -> None: ...

        def validation(self, step: int, scores: Any) -> None: ...

        def workers(self, rows: Any) -> None: ...

        def close(self) -> None: ...

    config = load_config(
        preset="sinusoid-maml",
        overrides={"model.hidden": [4], "meta_batch_size": 2, "steps": 7, "checkpoint_every": 3, "validate_every": 0},
    ).config
    built = build(config)

    saved: list[int] = []

    class Watching(CheckpointStore):
        def save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
            saved.append(checkpoint.step)
            assert Listener.told[: checkpoint.step] == list(range(1, checkpoint.step + 1))
            super().save(checkpoint, best=best)

    executor = LocalExecutor(built.blueprint)
    tracker = Trackers([Listener()], together_s=math.inf)
    train_loop(Driver(built.state(), built.blueprint, executor, built.schedule, tracker), Watching(tmp_path))
    executor.close()
    assert saved == [3, 6, 7]


def test_a_killed_worker_is_replaced_and_changes_nothing(local_ray: Any, tmp_path: Path) -> None:
    config = load_config(overrides={**SMALL, "steps": 8}).config
    expected, _ = bits(config, 0, tmp_path / "quiet")
    built = build(config)
    events: list[str] = []
    pool = RayExecutor(built.blueprint, PoolOptions(workers=2), tell=lambda kind, message, **_: events.append(kind))
    state = built.state()

    class Killer:
        """A tracker that kills a worker's process after the third step."""

        def step(self, step: int, metrics: Any) -> None:
            if step == 3:
                os.kill(pool.workers()[0].pid, signal.SIGKILL)

        def event(self, kind: str, message: str, **fields: object) -> None: ...

        def validation(self, step: int, scores: Any) -> None: ...

        def workers(self, rows: Any) -> None: ...

        def close(self) -> None: ...

    try:
        tracker = Trackers([Killer()], together_s=0)
        driver = Driver(state, built.blueprint, pool, built.schedule, tracker)
        train_loop(driver, CheckpointStore(tmp_path / "killed"))
        rows = pool.workers()
    finally:
        pool.close()
    assert params_sha256(state.outer.learned.params) == expected
    assert events == ["worker_lost"]
    assert sum(row.restarts for row in rows) == 1


def test_a_shard_that_raises_repeatedly_ends_the_run_with_its_error(local_ray: Any) -> None:
    from raymeta.engine.job import Job
    from raymeta.errors import WorkerFailed
    from raymeta.keys import Block, Shard

    built = build(load_config(overrides=SMALL).config)
    pool = RayExecutor(built.blueprint, PoolOptions(workers=1))
    try:
        payload = built.blueprint.payload(built.initial)
        short = payload._replace(learned=payload.learned[:-1])  # a parameter is missing
        with pytest.raises(WorkerFailed, match=r"step 4, tasks 0 to 1.*raised 3 times"):
            list(pool.map(Job("gradient"), short, [Shard(0, "train", 4, 0, 2)]))
        results = list(pool.map(Job("gradient"), built.blueprint.payload(built.initial), [Shard(0, "train", 4, 0, 2)]))
    finally:
        pool.close()
    assert [block for block, _ in results] == [Block(0, 0)], "the pool goes on after an error"


def test_workers_never_write_into_shared_memory(local_ray: Any) -> None:
    from raymeta.engine.job import Job
    from raymeta.engine.worker.worker import Worker
    from raymeta.keys import Shard

    built = build(load_config(overrides=SMALL).config)
    before = built.blueprint.payload(built.initial)
    shared = local_ray.get(local_ray.put(before))  # a read-only view of the object store
    assert not shared.learned.flags.writeable
    for job in (Job("gradient"), Job("scores")):
        Worker(built.blueprint).run(job, shared, Shard(0, "train", 0, 0, 2))
    assert (shared.learned == before.learned).all()


def command(output: Path, *options: str) -> list[str]:
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    return [
        sys.executable,
        "-m",
        "raymeta.train",
        "--output",
        str(output),
        "--log-format",
        "plain",
        *settings,
        *options,
    ]


def only_run(output: Path) -> Path:
    (run,) = (path for path in output.iterdir() if path.is_dir())
    return run


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    quiet = raymeta.meta_train(output=str(tmp_path / "quiet"), **{**SMALL, "steps": 30})
    process = subprocess.Popen(command(tmp_path / "killed", "--steps", "30"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # kill it between two checkpoints
        runs = [p for p in (tmp_path / "killed").glob("*/metrics.jsonl") if p.read_text().count("\n") >= 8]
        if runs:
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    run = raymeta.load_run(only_run(tmp_path / "killed"))
    assert run.status == "lost"
    assert run.summary is None
    resumed = subprocess.run(
        [sys.executable, "-m", "raymeta.train", "--resume", "latest", "--output", str(tmp_path / "killed")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    after = json.loads((run.path / "summary.json").read_text())
    assert after["params_sha256"] == (quiet.summary or {})["params_sha256"]
    assert after["headline"] == (quiet.summary or {})["headline"]
    assert [row["step"] for row in raymeta.load_run(run.path).metrics()] == list(range(1, 31))


def test_stopped_by_a_signal_saves_and_exits_130(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "--steps", "100000", "--compile", "false"), stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.glob("*/metrics.jsonl")):
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--resume" in out
    run = raymeta.load_run(only_run(tmp_path))
    assert run.status == "stopped"
    assert CheckpointStore(run.path / "checkpoints").load_last()[0].step > 0  # type: ignore[union-attr]


def test_a_time_limit_ends_the_run_normally(tmp_path: Path) -> None:
    run = raymeta.meta_train(
        output=str(tmp_path), **{**SMALL, "steps": 100000, "time_limit": "2s", "validate_every": 1000}
    )
    assert run.status == "finished"
    summary = run.summary or {}
    assert summary["stopped_by"] == "time_limit"
    assert 0 < summary["steps"] < 100000
    assert summary["headline"]["episodes"] == 8
    assert set(summary["headline"]) == {"name", "value", "ci95", "episodes", "split", "better", "of"}


@pytest.mark.slow
def test_the_headline_scores_the_checkpoint_best_on_validation(tmp_path: Path) -> None:
    run = raymeta.meta_train(output=str(tmp_path), **{**SMALL, "steps": 12, "validate_every": 3})
    rows = [row for row in run.metrics() if "val/accuracy" in row]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    best = max(rows, key=lambda row: row["val/accuracy"])["step"]
    assert (run.summary or {})["scored_checkpoint"] == best
    evaluation = raymeta.meta_test(run, episodes=8)
    assert evaluation.headline.value == (run.summary or {})["headline"]["value"]
    assert evaluation.settings["checkpoint_step"] == best


def test_the_worst_episodes_the_middle_one_and_the_best_are_written_out(tmp_path: Path) -> None:
    """What is written agrees with the scores: the same accuracy by inner step, and the place among all episodes."""
    run = raymeta.meta_train(output=str(tmp_path), **{**SMALL, "steps": 2})
    folder = run.path / "eval" / "episodes"
    scores = raymeta.meta_test(run, episodes=8).scores
    ranked = scores.ranked()
    assert list(scores.main[ranked, -1]) == sorted(scores.main[:, -1])
    assert len(list(folder.glob("*.png"))) == len(list(folder.glob("*.json"))) == 6
    for place in (0, 1, 2, 3, 4, 7):  # of eight: the worst four, the middle one, the best
        index = ranked[place]
        content = json.loads((folder / f"episode-{index:04d}.json").read_text())
        assert content["rank"] == place + 1
        right = [sum(p == y for p, y in zip(row, content["query_y"], strict=True)) for row in content["predicted"]]
        assert [r / len(content["query_y"]) for r in right] == pytest.approx(scores.main[index].tolist())


def test_boxes_say_where_the_images_of_a_sheet_are(tmp_path: Path) -> None:
    run = raymeta.meta_train(output=str(tmp_path), **{**SMALL, "steps": 1, "test_episodes": 1})
    folder = run.path / "eval" / "episodes"
    content = json.loads((folder / "episode-0000.json").read_text())
    episode = build(load_config(files=[run.path / "config.yaml"]).config).blueprint.tasks.episode(
        raymeta.TaskKey(**content["key"])
    )
    with Image.open(folder / "episode-0000.png") as sheet:
        pixels = np.asarray(sheet, float) / 255
    for side, name in zip(episode, ("support", "query"), strict=True):
        for image, (left, top, width, height) in zip(side.x, content["boxes"][name], strict=True):
            drawn = pixels[top : top + height, left : left + width]
            assert np.abs(drawn - image[0].numpy()).max() < 1 / 255


def test_a_loaded_checkpoint_predicts_what_the_live_parameters_did(tmp_path: Path) -> None:
    """Files order tensors by name and the model does not; the best step is the last one here, so both are scored."""
    run = raymeta.meta_train(output=str(tmp_path), **{**SMALL, "steps": 30, "validate_every": 30, "outer.lr": 0.01})
    live = (run.summary or {})["by_inner_step"]
    assert raymeta.meta_test(run, episodes=8).summary.per_step == live


def test_evaluation_is_paired_and_independent_of_workers_and_shards(local_ray: Any, tmp_path: Path) -> None:
    run = raymeta.meta_train(output=str(tmp_path), **{**SMALL, "steps": 4})
    alone = raymeta.meta_test(run, episodes=10)
    shared = raymeta.meta_test(run, episodes=10, workers=2)
    assert (alone.scores.main == shared.scores.main).all()
    assert alone.scores.main.shape == (10, 4)  # before adapting and after three inner steps
    other = raymeta.meta_test(run, episodes=10, inner_steps=0)
    assert (other.scores.main[:, 0] == alone.scores.main[:, 0]).all()
    assert other.settings["episodes_sha256"] == alone.settings["episodes_sha256"]


def test_a_run_whose_folder_is_deleted_ends_and_does_not_bring_back_a_part_of_it(tmp_path: Path) -> None:
    """A folder with checkpoints and no configuration could be neither resumed nor evaluated."""
    options = {"steps": 40, "checkpoint_every": 5, "validate_every": 0, "model.hidden": [8], "output": str(tmp_path)}
    config = load_config(preset="sinusoid-maml", overrides=options).config
    looks = itertools.count()

    def take_away() -> None:  # at once, and while no checkpoint is on its way to the disk
        if next(looks) == 7:
            (path,) = (path for path in tmp_path.iterdir() if path.is_dir())
            while not (path / "checkpoints" / "index.json").exists():
                time.sleep(0.01)
            path.rename(tmp_path / "gone")

    with pytest.raises(EnvironmentProblem, match="the folder is gone: was the run deleted"):
        Training(config, stop=take_away).execute()
    assert next(looks) < 30, "it ended at one of the next checkpoints"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["gone"]
