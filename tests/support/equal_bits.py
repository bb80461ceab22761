"""A law of every method: whole runs give the same bits in one process, on two workers, and after stop and resume."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import raymeta
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.runs.read import Run
from raymeta.tree import Params

SMALL: dict[str, Any] = {"meta_batch_size": 4, "shard_size": 2, "steps": 6, "checkpoint_every": 3}
SMALL |= {"validate_every": 0, "test_episodes": 4, "device": "cpu"}


def require_equal_bits(folder: Path, **options: Any) -> Run:
    """Raise unless a small run of `options` ends on the same parameters and scores each time; returns it."""
    options = SMALL | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that a switch drops, and of the checkpoint that is taken away
        alone = raymeta.meta_train(output=str(folder / "0"), **options)
        shared = raymeta.meta_train(output=str(folder / "2"), workers=2, **options)
        cut = folder / "cut" / alone.path.name
        shutil.copytree(alone.path, cut)
        shutil.rmtree(cut / "checkpoints" / f"step-{options['steps']:08d}")
        again = raymeta.meta_train(resume=cut)
    assert _end(shared) == _end(alone)
    assert _end(again) == _end(alone)
    return alone


def _end(run: Run) -> tuple[object, object]:
    summary = run.summary or {}
    return summary["params_sha256"], summary["headline"]


def last_params(run: Run) -> Params:
    """Everything learned at the end of a run."""
    found = CheckpointStore(run.path / "checkpoints").load_last()[0]
    assert found is not None
    return found.learned.params
