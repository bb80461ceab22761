"""Bad input: one clear error, the right exit code, nothing lost, no traceback."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import raymeta
from raymeta import MAML, Episode, Examples
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.errors import CheckpointError, EnvironmentProblem, NonFiniteGradient
from raymeta.evaluate import main as evaluate
from raymeta.train import main as train

TINY = ["model.width=4", "meta_batch_size=2", "shard_size=1", "test_episodes=2", "validate_every=0", "-q"]


def fails(capsys: pytest.CaptureFixture[str], code: int, options: list[str], *texts: str, command: Any = train) -> str:
    """Run a command that must fail with `code`, one message that holds all `texts`, and no traceback."""
    capsys.readouterr()
    assert command(options) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for text in texts:
        assert text in error, error
    return error


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["--stepz", "3"], ["stepz", "did you mean steps"]),
        (["--steps", "many"], ["steps", "many", "whole number"]),
        (["--steps", "0"], ["steps", "> 0"]),
        (["--algorithm.inner_lr", "-1"], ["algorithm.inner_lr", "≥ 0"]),
        (["--algorithm", "protonet", "--algorithm.inner_lr", "0.1"], ["belongs to", "maml", "this run uses protonet"]),
        (["--algorithm", "mamll"], ["mamll", "did you mean maml"]),
        (["--algorithm", "nowhere.at:all"], ["nowhere.at:all"]),
        (["--preset", "omniglot"], ["omniglot-5w1s-maml"]),
        (["-c", "absent.yaml"], ["absent.yaml"]),
        (["-c", os.devnull], [os.devnull, "no regular file"]),
        (["--preset"], ["--preset needs a name", "omniglot-5w1s-maml"]),
        (["--tasks", "sinusoid"], ["conv4 needs images", "--model mlp"]),
        (["--tasks", "sinusoid", "--model", "mlp", "--algorithm", "protonet"], ["protonet", "sinusoid"]),
        (["--tasks.train_way", "3"], ["tasks.train_way 3", "protonet"]),
        (["--tasks.train_query_shot", "0"], ["train_query_shot"]),
        (["--log-format", "loud"], ["loud"]),
        (["stray"], ["stray"]),
        (["--algorithm", "reptile", "--algorithm.inner_state", "actor"], ["number of workers", "driver"]),
    ],
)
def test_configuration_mistakes(
    options: list[str], texts: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fails(capsys, 2, [*options, "--output", str(tmp_path / "out")], *texts)
    assert not (tmp_path / "out").exists(), "nothing is written for a mistake of configuration"


def test_bad_yaml_names_the_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("steps: 3\ntasks: {name: glyphs\nmodel: conv4\n")
    fails(capsys, 2, ["-c", str(file)], "bad.yaml:3")
    file.write_text("steps: 3\nalgorithm:\n  name: maml\n  inner_rl: 0.1\n")
    fails(capsys, 2, ["-c", str(file)], "bad.yaml:4", "algorithm.inner_rl", "did you mean algorithm.inner_lr")


def test_missing_omniglot_says_where_and_how(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--preset", "omniglot-5w1s-maml", "--tasks.root", str(tmp_path / "nowhere"), "--output", str(tmp_path)]
    fails(capsys, 3, options, str(tmp_path / "nowhere"), "glyphs")


def picture_tree(root: Path, counts: dict[str, int]) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def test_too_few_images_and_corrupt_images_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = picture_tree(tmp_path / "pictures", {f"class{i:02}": 2 if i == 3 else 4 for i in range(40)})
    options = ["--tasks", "images", "--tasks.root", str(root), "--output", str(tmp_path / "out"), *TINY]
    options = [*options, "--tasks.query_shot", "1"]
    fails(capsys, 3, [*options, "--tasks.shot", "2"], "class03 (2)", "tasks.shot")
    shutil.copytree(root, tmp_path / "damaged")
    (tmp_path / "damaged" / "class07" / "1.png").write_bytes(b"this is no image")
    fails(capsys, 3, [*options, "--tasks.root", str(tmp_path / "damaged")], "class07", "1.png")
    assert not (tmp_path / "out").exists()


def test_way_beyond_the_classes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = picture_tree(tmp_path / "pictures", {f"class{i:02}": 3 for i in range(25)})
    options = ["--tasks", "images", "--tasks.root", str(root), "--output", str(tmp_path / "out"), *TINY]
    fails(capsys, 3, [*options, "--tasks.way", "9", "--tasks.query_shot", "1"], "9-way")


@pytest.fixture
def trained(tmp_path: Path) -> raymeta.runs.read.Run:  # type: ignore[name-defined]
    options = {"model.width": 4, "meta_batch_size": 2, "shard_size": 1, "test_episodes": 2}
    return raymeta.meta_train(output=str(tmp_path / "runs"), steps=6, checkpoint_every=2, validate_every=0, **options)


@pytest.mark.parametrize("damage", ["truncate", "flip", "state"])
def test_a_damaged_checkpoint_falls_back_and_says_so(
    trained: Any, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained.summary or {})["params_sha256"]
    newest = trained.path / "checkpoints" / "step-00000006"
    tensors = newest / "params.safetensors"
    content = tensors.read_bytes()
    if damage == "truncate":
        tensors.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        (newest / "state.json").write_text("{torn")
    capsys.readouterr()
    assert train(["--resume", str(trained.path), "--log-format", "plain"]) == 0
    error = capsys.readouterr().err
    assert "step-00000006" in error
    assert "continues at step 4" in error
    assert (raymeta.load_run(trained.path).summary or {})["params_sha256"] == before
    store = CheckpointStore(trained.path / "checkpoints")
    assert store.load("step-00000006").step == 6, "the damaged one was written again"


def test_without_any_readable_checkpoint_nothing_is_guessed(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (trained.path / "checkpoints").glob("*/params.safetensors"):
        path.write_bytes(b"no tensors")
    fails(capsys, 3, ["--resume", str(trained.path)], "no checkpoint can be read", "damaged")
    fails(capsys, 3, [str(trained.path)], "no checkpoint can be read", command=evaluate)
    shutil.rmtree(trained.path / "checkpoints")
    fails(capsys, 3, [str(trained.path)], "no checkpoint", command=evaluate)


def test_resume_refuses_what_changes_the_result(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, 2, ["--resume", str(trained.path), "--algorithm.inner_lr", "0.3"], "algorithm", "new run")
    fails(capsys, 2, ["--resume", "nothing-like-it", "--output", str(trained.path.parent)], "nothing-like-it")
    assert (trained.summary or {})["steps"] == 6


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raymeta.adaptation.problem import Learned
    from raymeta.engine.driver import checkpoint as module
    from raymeta.engine.driver.checkpoint import Checkpoint

    store = CheckpointStore(tmp_path)
    params = {"w": torch.arange(4.0)}
    store.save(Checkpoint(1, Learned(params, {}), {}))
    written = module.write_whole

    def full(path: Path, data: Any) -> None:
        if path.name == module.OUTER:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(path, data)

    monkeypatch.setattr(module, "write_whole", full)
    with pytest.raises(EnvironmentProblem, match=r"step 2 .*No space left.*step-00000001"):
        store.save(Checkpoint(2, Learned(params, {}), {}))
    monkeypatch.undo()
    loaded, problems = CheckpointStore(tmp_path).load_last()
    assert loaded is not None
    assert loaded.step == 1
    assert not problems
    assert torch.equal(loaded.learned.params["w"], params["w"])
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/full").exists(), reason="mounting a small disk needs root")
def test_a_run_on_a_really_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file system of 400 kB: the run ends with exit code 3, and what was saved before can be resumed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=400k tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("mounting is not allowed here")
    try:
        options = ["--output", str(disk), "steps=400", "checkpoint_every=1", "keep_checkpoints=40", *TINY]
        fails(capsys, 3, options, "No space left", "--resume")
        (run,) = (p for p in disk.iterdir() if p.is_dir())
        loaded, _ = CheckpointStore(run / "checkpoints").load_last()
        assert loaded is not None
        assert loaded.step >= 1
    finally:
        os.system(f"umount -l {disk}")


def test_a_non_finite_meta_gradient_names_step_and_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--output", str(tmp_path), "--algorithm.inner_lr", "1e30", "steps=5", "checkpoint_every=1", *TINY]
    error = fails(capsys, 1, options, "meta-gradient of step", "not finite", "seed 0, train, step", "inner_lr")
    assert "index" in error
    (run,) = (p for p in tmp_path.iterdir() if p.is_dir())
    opened = raymeta.load_run(run)
    assert opened.status == "failed"
    loaded, _ = CheckpointStore(run / "checkpoints").load_last()
    assert loaded is not None
    assert all(value.isfinite().all() for value in loaded.learned.params.values())


def test_unwritable_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    fails(capsys, 3, ["--output", str(blocker / "results"), "steps=1", *TINY], str(blocker), "--output")


def test_ray_not_reachable_fails_within_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    if ray.is_initialized():
        pytest.skip("Ray runs in this process already")
    options = ["--workers", "1", "--address", address, "--output", str(tmp_path), "steps=1", *TINY]
    fails(capsys, 3, options, address, "leave --address out")


def test_a_layer_without_second_derivative_is_named() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.EmbeddingBag(10, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.words(x))
            return out

    side = Examples(torch.randint(0, 10, (6, 5), generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3)
    with pytest.raises(raymeta.RaymetaError, match=r"words \(EmbeddingBag\).*nn.Embedding"):
        raymeta.meta_gradient(Bag(), MAML(inner_lr=0.1), [Episode(side, side)], vectorize="loop")
    first = raymeta.meta_gradient(Bag(), MAML(inner_lr=0.1, first_order=True), [Episode(side, side)], vectorize="loop")
    assert first["words.weight"].abs().sum() > 0


def test_recurrent_layers_are_exact_or_say_what_to_do() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.cells(x)[0][:, -1])
            return out

    side = Examples(torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3)
    model, episodes = Recurrent(), [Episode(side, side)] * 2
    loop = raymeta.meta_gradient(model, MAML(inner_lr=0.1), episodes, vectorize="loop")
    assert any(value.abs().sum() > 0 for value in loop.values())
    try:
        vmap = raymeta.meta_gradient(model, MAML(inner_lr=0.1), episodes)
    except raymeta.RaymetaError as error:  # where torch has no vectorised form
        told = str(error)
        assert "cells (LSTM)" in told and "vectorize" in told  # noqa: PT018
    else:
        for name, value in loop.items():
            torch.testing.assert_close(value, vmap[name], rtol=1e-4, atol=1e-6)


def test_a_damaged_shape_is_refused(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, 2, [str(trained.path), "--way", "7"], "head", "keeps its way", command=evaluate)


def test_errors_are_documented_by_their_exit_codes() -> None:
    from raymeta import errors

    codes = {errors.ConfigError: 2, errors.DataError: 3, errors.EnvironmentProblem: 3, CheckpointError: 3}
    codes |= {NonFiniteGradient: 1, errors.WorkerFailed: 1}
    assert all(cls.exit_code == code for cls, code in codes.items())
