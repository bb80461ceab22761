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
from raymeta.engine.worker import compiled
from raymeta.keys import Shard

if sys.argv[1] == "torch":
    compiled.built_together = nullcontext
options = {"compile": True, "device": "cpu", "model.width": 4, "shard_size": 2}
built = build(load_config(preset="glyphs-5w1s-maml", overrides=options).config)
executor = LocalExecutor(built.blueprint, lambda *_, **__: None)
shards = [Shard(step, "train", 7, 0, 2) for step in (0, 1)]
vectors = [result.vector for _, result in executor.map(Job("gradient"), built.blueprint.payload(built.initial), shards)]
numpy.save(sys.argv[2], numpy.stack(vectors))
"""


def computed(how: str, folder: Path) -> tuple[bytes, int]:
    """The bits of two gradients, and how many libraries were built for them."""
    folder.mkdir()
    cache = folder / "cache"
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
    subprocess.run([sys.executable, "-c", GRADIENT, how, folder / "gradients.npy"], check=True, env=environment)
    return (folder / "gradients.npy").read_bytes(), len(list(cache.rglob("*.so")))


@pytest.mark.slow
def test_kernels_built_together_have_the_bits_of_kernels_built_by_torch(tmp_path: Path) -> None:
    ours, few = computed("together", tmp_path / "together")
    theirs, many = computed("torch", tmp_path / "torch")
    assert ours == theirs
    assert few <= 8 < many


@pytest.mark.slow
def test_of_processes_that_compile_the_same_one_does_and_the_others_load(tmp_path: Path) -> None:
    """The last one to compile would have written its own kernels into the cache."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TORCH_LOGS": "aot"}
    command = [sys.executable, "-c", GRADIENT, "together"]
    both = []
    for n in range(2):
        with (tmp_path / f"{n}.log").open("w") as log:  # a pipe would fill, and the two wait for each other
            both.append(subprocess.Popen([*command, tmp_path / f"{n}.npy"], env=environment, stderr=log))
    assert [process.wait() for process in both] == [0, 0]
    hits = sorted("AOTAutograd cache hit" in (tmp_path / f"{n}.log").read_text() for n in range(2))
    assert hits == [False, True]
    assert (tmp_path / "0.npy").read_bytes() == (tmp_path / "1.npy").read_bytes()
