"""Faults on a cluster of several nodes, from the kill of a worker to that of the driver: the bits stay the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_minute_of_chaos_changes_no_bit() -> None:
    kinds = ["worker killed", "worker frozen for 3 s", "worker raises", "node lost", "driver killed"]
    told = run("chaos.py", "--tasks", "sinusoid", "--minutes", "0.2", "--no-record", "--kinds", *kinds)
    assert "everything recovered, and the bits are equal" in told


@pytest.mark.slow
def test_hosts_whose_links_are_cut_change_no_bit(omniglot_root: Path) -> None:
    """Opt-in, since it makes network namespaces: RAYMETA_TEST_HOSTS=1 as root, with `ip` and `tc` (iproute2)."""
    if not os.environ.get("RAYMETA_TEST_HOSTS"):
        pytest.skip("set RAYMETA_TEST_HOSTS=1 to make network namespaces")
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and iproute2")
    told = run("hosts.py", "cut", "--root", str(omniglot_root), "--steps", "60", "--no-record")
    assert '"equal": true' in told
