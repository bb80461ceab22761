"""On a CUDA device: the same gradients as on the CPU to rounding, equal bits where that was asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raymeta.api.train import meta_train
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.job import Job
from raymeta.keys import Shard
from raymeta.tree import FloatArray, params_sha256

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

SMALL: dict[str, Any] = {"model.width": 16, "meta_batch_size": 8, "shard_size": 4, "validate_every": 0}


def gradient(**options: Any) -> FloatArray:
    built = build(load_config(overrides={**SMALL, **options}).config)
    executor = LocalExecutor(built.blueprint)
    payload = built.blueprint.payload(built.initial)
    ((_, result),) = executor.map(Job("gradient"), payload, [Shard(0, "train", 0, 0, 4)])
    executor.close()
    return result.vector


def distance(a: FloatArray, b: FloatArray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


@pytest.mark.parametrize("algorithm", ["maml", "anil", "meta_sgd", "reptile", "protonet"])
@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_gradients_are_those_of_the_cpu(algorithm: str, vectorize: str) -> None:
    options = {"algorithm": algorithm, "vectorize": vectorize}
    assert distance(gradient(**options, device="cpu"), gradient(**options, device="cuda")) < 1e-3


def test_deterministic_runs_have_equal_bits() -> None:
    options = {"device": "cuda", "deterministic": True}
    assert np.array_equal(gradient(**options), gradient(**options))


def test_episodes_that_were_prepared_beside_the_gpu_change_no_bits() -> None:
    built = build(load_config(overrides={**SMALL, "device": "cuda", "deterministic": True}).config)
    payload, job = built.blueprint.payload(built.initial), Job("gradient")
    now, later = Shard(0, "train", 0, 0, 4), Shard(0, "train", 1, 0, 4)
    vectors = []
    for upcoming in ([later], []):
        executor = LocalExecutor(built.blueprint)
        list(executor.map(job, payload, [now], upcoming=upcoming))
        vectors.append(next(executor.map(job, payload, [later]))[1].vector)
        executor.close()
    assert np.array_equal(vectors[0], vectors[1])


def test_tf32_is_off_unless_asked_for() -> None:
    exact = gradient(device="cpu")
    assert distance(exact, gradient(device="cuda")) < distance(exact, gradient(device="cuda", precision="tf32"))


def test_a_worker_takes_a_gpu_and_ends_with_the_bits_of_one_process(tmp_path: Any) -> None:
    ray = pytest.importorskip("ray")
    options = {**SMALL, "device": "cuda", "deterministic": True, "steps": 5, "test_episodes": 8}
    shas = []
    for workers in (0, 1):
        run = meta_train(**options, workers=workers, output=str(tmp_path / str(workers)))
        shas.append((run.summary or {})["params_sha256"])
    assert shas[0] == shas[1]
    assert not ray.is_initialized()


def test_a_trained_model_is_read_on_a_machine_without_one(tmp_path: Any) -> None:
    from raymeta.engine.driver.checkpoint import CheckpointStore

    run = meta_train(**SMALL, device="cuda", steps=3, test_episodes=8, output=str(tmp_path))
    checkpoint, _ = CheckpointStore(run.path / "checkpoints").load_last()
    assert checkpoint is not None
    assert all(value.device.type == "cpu" for value in checkpoint.learned.params.values())
    assert params_sha256(checkpoint.learned.params) == (run.summary or {})["params_sha256"]
