"""Slow: the main job learns, and a run killed with its Ray workers goes on with another number of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import raymeta

pytestmark = pytest.mark.slow


def train(*options: str) -> list[str]:
    return [sys.executable, "-m", "raymeta.train", *options]


@pytest.mark.timeout(900)
def test_the_main_job_learns_to_learn(tmp_path: Path) -> None:
    """What `make train` runs: Ray actors, glyphs, at least 80 % after adapting and chance before."""
    done = subprocess.run(
        train("--workers", "2", "--output", str(tmp_path)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "next:   raymeta dashboard" in done.stdout
    assert "before adapting" in done.stdout
    summary = raymeta.load_run("latest", output=tmp_path).summary or {}
    assert summary["headline"]["value"] - summary["headline"]["ci95"] > 0.80
    assert summary["headline"]["episodes"] == 600
    assert 0.15 < summary["by_inner_step"][0] < 0.25


@pytest.mark.timeout(600)
def test_killed_with_its_workers_and_resumed_with_others(tmp_path: Path) -> None:
    options: dict[str, Any] = {"model.width": 8, "meta_batch_size": 8, "shard_size": 2, "validate_every": 10}
    options |= {"test_episodes": 8, "validation_episodes": 8, "checkpoint_every": 5, "steps": 40}
    quiet = raymeta.meta_train(output=str(tmp_path / "quiet"), **options)
    settings = [f"{key}={value}" for key, value in options.items()]
    process = subprocess.Popen(
        train("--output", str(tmp_path / "killed"), "--workers", "2", *settings),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if any(p.read_text().count("\n") >= 12 for p in (tmp_path / "killed").glob("*/metrics.jsonl")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = subprocess.run(
        train("--resume", "latest", "--output", str(tmp_path / "killed"), "--workers", "3"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    run = raymeta.load_run("latest", output=tmp_path / "killed")
    assert json.loads((run.path / "run.json").read_text())["attempt"] == 2
    assert (run.summary or {})["params_sha256"] == (quiet.summary or {})["params_sha256"]
    assert (run.summary or {})["headline"] == (quiet.summary or {})["headline"]
