"""Kernels that are built together compute the bits of those that torch builds one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GRADIENT = """
import numpy, sys
from contextlib import nullcontext
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.job import Job
from raymeta.engine.worker import compiled, kernels
from raymeta.keys import Shard

if sys.argv[1] == "torch":
    compiled.built_together = nullcontext
kernels.LEAST_CHARACTERS = 2000  # so that there are several libraries
options = {"compile": True, "device": "cpu", "model.hidden": [8], "shard_size": 2}
built = build(load_config(preset="sinusoid-maml", overrides=options).config)
executor = LocalExecutor(built.blueprint, lambda *_, **__: None)
shards = [Shard(step, "train", 7, 0, 2) for step in (0, 1)]
vectors = [result.vector for _, result in executor.map(Job("gradient"), built.blueprint.payload(built.initial), shards)]
numpy.save(sys.argv[2], numpy.stack(vectors))
"""


def begun(how: str, folder: Path, name: str) -> subprocess.Popen[bytes]:
    """A process that computes the gradients into `name`.npy, with compiled kernels under `how`."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / how), "TORCH_LOGS": "torch._inductor.codecache"}
    command = [sys.executable, "-c", GRADIENT, how, folder / f"{name}.npy"]
    with (folder / f"{name}.log").open("w") as log:  # a pipe would fill, and processes wait for each other
        return subprocess.Popen(command, env=environment, stderr=log)


@pytest.mark.slow
def test_kernels_built_together_have_the_bits_of_kernels_built_by_torch(tmp_path: Path) -> None:
    """Of two processes that compile the same at a time, one does, and the other loads what it made."""
    pair = [begun("together", tmp_path, name) for name in ("one", "other")]
    assert [process.wait() for process in pair] == [0, 0]
    assert begun("torch", tmp_path, "torch").wait() == 0
    assert len({(tmp_path / f"{name}.npy").read_bytes() for name in ("one", "other", "torch")}) == 1
    few, many = (len(list((tmp_path / how).rglob("*.so"))) for how in ("together", "torch"))
    assert 1 < few < many
    loaded = ["fx graph cache hit" in (tmp_path / f"{name}.log").read_text() for name in ("one", "other")]
    assert sorted(loaded) == [False, True]
