"""The rule behind `vectorize: auto` agrees with what was measured, and a run keeps what it chose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import raymeta
from raymeta.engine.worker.vectorize import by_rule, choose_vectorize, largest_convolution
from raymeta.errors import ConfigError
from raymeta.models.conv4 import Conv4
from raymeta.models.mlp import MLP

MEASURED = Path(__file__).parents[2] / "results" / "benchmarks" / "paths.json"
SMALL: dict[str, Any] = {"steps": 2, "meta_batch_size": 2, "shard_size": 2, "validate_every": 0, "test_episodes": 4}


@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
@pytest.mark.parametrize("row", json.loads(MEASURED.read_text())["rows"], ids=lambda row: row["case"])
def test_the_rule_chooses_what_was_measured_to_be_fast(row: dict[str, Any], compiled: bool) -> None:
    suffix = ", compiled" if compiled else ""
    rates = {path: row["tasks_per_s"][path + suffix]["median"] for path in ("vmap", "loop")}
    assert rates[by_rule(row["values"], compiled=compiled).vectorize] > 0.9 * max(rates.values())


def test_values_are_those_of_the_largest_convolution() -> None:
    assert largest_convolution(Conv4(width=8).build((1, 28, 28), 5), torch.zeros(2, 1, 28, 28)) == 8 * 14 * 14
    assert (
        largest_convolution(Conv4(width=8, downsample="pool").build((1, 28, 28), 5), torch.zeros(2, 1, 28, 28))
        == 8 * 28 * 28
    )
    assert largest_convolution(MLP().build((1,), 1), torch.zeros(2, 1)) == 0


def test_no_rule_is_needed_on_a_gpu_or_without_convolutions() -> None:
    pooled = Conv4(downsample="pool").build((1, 28, 28), 5)
    assert choose_vectorize(pooled, torch.zeros(2, 1, 28, 28), 80, "cpu").vectorize == "loop"
    assert choose_vectorize(pooled, torch.zeros(2, 1, 28, 28), 1, "cpu").vectorize == "vmap"
    assert choose_vectorize(pooled, torch.zeros(2, 1, 28, 28), 1, "cpu", compiled=True).vectorize == "loop"
    assert choose_vectorize(pooled, torch.zeros(2, 1, 28, 28), 80, "cuda", compiled=True).vectorize == "vmap"
    assert choose_vectorize(MLP().build((1,), 1), (1,), 10, "cpu", compiled=True).vectorize == "vmap"
    assert choose_vectorize(MLP().build((1,), 1), (1,), 10**6, "cpu").vectorize == "vmap"


def test_asking_draws_no_random_numbers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(0.5), nn.Flatten())
    before = torch.get_rng_state()
    choose_vectorize(model, torch.zeros(2, 1, 8, 8), 10, "cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_images_that_do_not_fit_are_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot take images of shape \[n, 1, 8, 8\]"):
        choose_vectorize(nn.Sequential(nn.Conv2d(3, 2, 3)), torch.zeros(2, 1, 8, 8), 10, "cpu")


def test_a_run_records_what_was_chosen_and_goes_on_with_it(tmp_path: Path) -> None:
    options = {**SMALL, "tasks": "glyphs", "model.width": 4, "device": "cpu", "output": str(tmp_path)}
    run = raymeta.meta_train("omniglot-5w1s-protonet", **options, vectorize="auto")
    assert "\nvectorize: vmap\n" in (run.path / "config.yaml").read_text()
    (told,) = [event["message"] for event in run.events() if event["kind"] == "vectorize"]
    assert told.startswith("vmap by rule: convolutions make 94,080 values of a task")
    explicit = raymeta.meta_train("omniglot-5w1s-protonet", **options, vectorize="vmap")
    assert (explicit.summary or {})["params_sha256"] == (run.summary or {})["params_sha256"]
    assert not [event for event in explicit.events() if event["kind"] == "vectorize"]
    resumed = raymeta.meta_train(resume=run.path, steps=4)
    assert "\nvectorize: vmap\n" in (resumed.path / "config.yaml").read_text()
