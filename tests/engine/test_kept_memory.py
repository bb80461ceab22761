"""A worker keeps the memory that it frees: what is needed again in the next step needs no new pages."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from raymeta.system.kept_memory import SET_BY_HAND

MEASURED = """
import ctypes, json, resource
import torch
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.worker.worker import Worker
from raymeta.system.kept_memory import LARGEST_BLOCK

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(15_000_000)  # 60 MB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def least():
    return min([new_pages() for _ in range(25)][-10:])  # the first ones give the heap its shape

def resident():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

def worker():
    return Worker(build(load_config(preset="sinusoid-maml", overrides={"compile": False}).config).blueprint)

found = {"without": least()}
first = worker()
found["with"] = least()
second = worker()
second.close()
found["after another one"] = least()
kept = resident()
first.close()
found["given back"] = kept - resident()
found["possible"] = ctypes.CDLL(None).mallopt(-3, LARGEST_BLOCK)
print(json.dumps(found))
"""


def measured(**variables: str) -> dict[str, Any]:
    rest = {name: value for name, value in os.environ.items() if name not in SET_BY_HAND}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True, env=rest | variables
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not found["possible"]:
        pytest.skip("this glibc keeps no block of this size")
    return found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_a_block_that_a_worker_frees_is_used_again_until_the_last_worker_is_closed() -> None:
    found = measured()
    assert found["without"] >= 16, "of whatever size pages are"
    assert found["with"] <= 4
    assert found["after another one"] <= 4, "one worker that is closed must not end it for the others"
    assert found["given back"] > 30e6


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_limits_that_a_person_set_are_left_alone() -> None:
    assert measured(MALLOC_MMAP_THRESHOLD_="1000000")["with"] >= 16
