"""Weights to begin with, and parameters that stay as they are."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import raymeta
from raymeta.api.start import tensors_from
from raymeta.errors import ConfigError, DataError
from raymeta.export import main as export

SMALL: dict[str, Any] = {
    "preset": "sinusoid-maml", "model.hidden": [8, 8], "validate_every": 0, "test_episodes": 4, "meta_batch_size": 4,
}  # fmt: skip


def trained(output: Path, steps: int = 2, **options: Any) -> Any:
    return raymeta.meta_train(output=str(output), steps=steps, **{**SMALL, **options})


def params(run: Any) -> dict[str, torch.Tensor]:
    return dict(raymeta.load_run(run.path).model().named_parameters())


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_a_run_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    """Tiny steps leave it near them, where another seed's own start is far away."""
    sgd = {"outer.optimizer": "sgd", "outer.lr": 1e-6}
    first = trained(tmp_path, steps=2, **sgd)
    second = trained(tmp_path, steps=1, start=first.id, seed=5, **sgd)
    elsewhere = trained(tmp_path, steps=1, seed=5, **sgd)
    third = trained(tmp_path, steps=1, seed=5, start=str(first.path), **sgd)
    assert second.summary["params_sha256"] == third.summary["params_sha256"]
    assert second.summary["params_sha256"] != elsewhere.summary["params_sha256"]
    for name, value in params(first).items():
        assert (params(second)[name] - value).abs().max() < 1e-3
        assert name.endswith("bias") or (params(elsewhere)[name] - value).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_frozen_parameters_stay_and_come_back(tmp_path: Path) -> None:
    start = trained(tmp_path, steps=1)
    run = trained(tmp_path, steps=3, seed=4, start=str(start.path), freeze=["linear1.*", "linear2.weight"])
    now, then = params(run), params(start)
    for name, value in then.items():
        is_frozen = name.startswith("linear1.") or name == "linear2.weight"
        assert torch.equal(now[name], value) == is_frozen, name


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_a_file_that_fits_in_part_says_what_was_left(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"linear1.weight": torch.ones(8, 1), "head.weight": torch.ones(3, 8)}, file)
    run = trained(tmp_path, steps=1, start=str(file), freeze=["linear1.weight"])
    assert torch.equal(params(run)["linear1.weight"], torch.ones(8, 1))
    notes = [event["message"] for event in run.events() if event["kind"] == "note"]
    assert any("starts with 1 of 6 tensors" in note and "head.weight" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"start": "absent.safetensors"}, DataError, "absent.safetensors cannot be read"),
        ({"start": "no-such-run"}, DataError, "start: no-such-run is no file of tensors .*no runs in"),
        ({"freeze": ["body.*"]}, ConfigError, r"freeze body\.\* matches no parameter"),
        ({"freeze": ["*"]}, ConfigError, "leaves nothing to learn"),
    ],
)
def test_what_cannot_be_is_told_before_there_is_a_folder(
    options: dict[str, Any], error: type[Exception], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        trained(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_model_are_told(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"other": torch.ones(2)}, file)
    with pytest.raises(ConfigError, match=r"none of the tensors in .* \(other \[2\]\)"):
        trained(tmp_path / "runs", start=str(file))


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_a_body_beside_other_networks_begins_with_a_network_alone(tmp_path: Path) -> None:
    """And a network alone with such a body."""
    options: dict[str, Any] = {"preset": None, "tasks": "glyphs", "model": "mlp", "model.hidden": [8], "tasks.way": 3}
    alone = trained(tmp_path, algorithm="baseline", **options)
    frozen = {"start": str(alone.path), "freeze": ["body.*"]}
    beside = trained(tmp_path, algorithm="leo", **options, **frozen)
    again = trained(tmp_path, algorithm="protonet", **options, start=str(beside.path), freeze=["linear1.weight"])
    weight = params(alone)["linear1.weight"]
    assert torch.equal(params(beside)["body.linear1.weight"], weight)
    assert torch.equal(params(again)["linear1.weight"], weight)


class Harmful:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("inside", ["itself", "state_dict"])
def test_a_state_dict_of_torch_is_a_start(inside: str, tmp_path: Path) -> None:
    file, tensors = tmp_path / "weights.pt", {"linear1.weight": torch.ones(8, 1)}
    torch.save(tensors if inside == "itself" else {"epoch": 3, inside: tensors}, file)
    run = trained(tmp_path / "runs", steps=1, init_from=str(file), freeze=["linear1.weight"])
    assert torch.equal(params(run)["linear1.weight"], torch.ones(8, 1))
    assert run.config["start"] == str(file)


@pytest.mark.parametrize(
    ("content", "text"), [("code", "without running code"), ("number", "holds no tensors by name")]
)
def test_a_file_of_torch_runs_nothing(content: str, text: str, tmp_path: Path) -> None:
    file, made = tmp_path / "weights.pth", tmp_path / "made"
    torch.save({"w": Harmful(made)} if content == "code" else 3, file)
    with pytest.raises(DataError, match=text):
        trained(tmp_path / "runs", init_from=str(file))
    assert not made.exists()


@pytest.mark.parametrize("damaged", [False, True], ids=["code", "damaged"])
def test_no_advice_of_torch_is_passed_on(damaged: bool, tmp_path: Path) -> None:
    """It advises to read such a file in a way that runs its code."""
    file = tmp_path / "weights.pt"
    torch.save({"w": Harmful(tmp_path / "made")}, file, _use_new_zipfile_serialization=not damaged)
    if damaged:
        file.write_bytes(bytes(file.read_bytes()[:40]) + b"damaged")
    with pytest.raises(
        DataError, match="it is damaged" if damaged else r"it names \w+\.mkdir, which would run"
    ) as told:
        tensors_from(str(file), output="")
    for word in ("weights_only", "torch.load", "safe_globals", "serialization", "trust"):
        assert word not in str(told.value)


def test_no_damaged_file_of_torch_is_anything_but_refused(tmp_path: Path) -> None:
    """Whatever byte is another one, and wherever the file ends; legacy files fail in ways of their own."""
    file, draws = tmp_path / "weights.pt", random.Random(0)
    for legacy in (False, True):
        torch.save({"a": torch.ones(3)}, file, _use_new_zipfile_serialization=not legacy)
        whole = file.read_bytes()
        for _ in range(400):
            damaged = bytearray(whole[: draws.choice([len(whole), len(whole), draws.randrange(len(whole))])])
            for place in draws.sample(range(len(damaged)), min(len(damaged), 6)):
                damaged[place] = draws.randrange(256)
            file.write_bytes(damaged)
            with contextlib.suppress(DataError):  # values of the tensor may be all that was changed
                tensors_from(str(file), output="")


def test_an_exported_model_is_a_start(tmp_path: Path) -> None:
    first = trained(tmp_path / "runs")
    assert export([str(first.path), "--out", str(tmp_path / "model")]) == 0
    with pytest.warns(raymeta.errors.RaymetaWarning, match="starts with 6 of 6 tensors"):
        second = trained(tmp_path / "runs", start=str(tmp_path / "model"), freeze=["linear*"])
    assert torch.equal(params(second)["linear1.weight"], params(first)["linear1.weight"])


def test_two_names_of_one_option_are_not_given_together(tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text("start: a\ninit_from: b\n")
    with pytest.raises(ConfigError, match=r"start and init_from are one option"):
        raymeta.meta_train(file=tmp_path / "both.yaml", output=str(tmp_path))
