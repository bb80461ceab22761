"""A worker keeps the memory that it frees: what is needed again in the next step needs no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MEASURED = """
import resource
import torch
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.worker.worker import Worker

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(25_000_000)  # 100 MB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(new_pages() for _ in range(6)))
worker = Worker(build(load_config(preset="sinusoid-maml", overrides={"compile": False}).config).blueprint)
print([new_pages() for _ in range(6)][-1])  # the first ones give the heap its shape
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_a_block_that_a_worker_frees_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    before, with_worker = map(int, done.stdout.split())
    assert before >= 16, "of whatever size pages are"
    assert with_worker <= 4
