"""Threads, deterministic kernels and the precision of products: set where shards are computed, and set back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raymeta.api.train import meta_train
from raymeta.config.build import Built, build
from raymeta.config.load import load_config
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.job import Job, Result
from raymeta.keys import Shard

SMALL: dict[str, Any] = {"model.width": 8, "meta_batch_size": 4, "shard_size": 4, "validate_every": 0, "steps": 2}


def gradient(**options: Any) -> tuple[Built, Result]:
    built = build(load_config(overrides={**SMALL, **options}).config)
    executor = LocalExecutor(built.blueprint)
    payload = built.blueprint.payload(built.initial)
    ((_, result),) = executor.map(Job("gradient"), payload, [Shard(0, "train", 0, 0, 4)])
    executor.close()
    return built, result


def test_settings_hold_while_the_executor_lives_and_no_longer() -> None:
    blueprint = build(load_config(overrides={**SMALL, "deterministic": True, "precision": "tf32"}).config).blueprint
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        executor = LocalExecutor(blueprint)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert torch.get_num_threads() == 1
        executor.close()
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cuda.matmul.fp32_precision != "tf32"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def precisions() -> list[object]:
    cudnn: Any = torch.backends.cudnn
    return [torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision]


@pytest.mark.parametrize(("precision", "factors"), [("float32", "ieee"), ("tf32", "tf32")])
def test_precision_is_one_in_all_of_torchs_settings(precision: str, factors: str) -> None:
    """Compilers and exporters read the older flag, and torch raises where it contradicts the newer ones."""
    before = [*precisions(), torch.backends.cudnn.allow_tf32]
    executor = LocalExecutor(build(load_config(overrides={**SMALL, "precision": precision}).config).blueprint)
    assert precisions() == [factors] * 3
    assert torch.backends.cudnn.allow_tf32 == (factors == "tf32")
    executor.close()
    assert [*precisions(), torch.backends.cudnn.allow_tf32] == before


def test_bfloat16_computes_the_network_and_leaves_sums_in_float32() -> None:
    one = {"algorithm.inner_steps": 1}
    _, exact = gradient(**one)
    _, again = gradient(**one)
    _, coarse = gradient(**one, precision="bfloat16")
    assert np.array_equal(exact.vector, again.vector)
    assert coarse.vector.dtype == np.float32
    assert not np.array_equal(exact.vector, coarse.vector)
    cosine = exact.vector @ coarse.vector / np.linalg.norm(exact.vector) / np.linalg.norm(coarse.vector)
    assert cosine > 0.85


def test_deterministic_kernels_are_the_same_on_a_cpu() -> None:
    assert np.array_equal(gradient()[1].vector, gradient(deterministic=True)[1].vector)


def test_a_run_says_with_which_precision_it_was_computed(tmp_path: Any) -> None:
    run = meta_train(**{**SMALL, "output": str(tmp_path), "precision": "bfloat16", "test_episodes": 4})
    assert (run.summary or {})["precision"] == "bfloat16"
    assert run.config["precision"] == "bfloat16"


@pytest.mark.parametrize("precision", ["half", "float64"])
def test_other_precisions_are_refused(precision: str) -> None:
    with pytest.raises(Exception, match="precision"):
        load_config(overrides={"precision": precision})
