"""The configuration and the best checkpoint of a run that is there, and whether the two fit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from raymeta.config.build import Built
from raymeta.config.load import load_config
from raymeta.config.schema import RunConfig
from raymeta.engine.driver.checkpoint import Checkpoint, CheckpointStore
from raymeta.errors import CheckpointError, ConfigError, RaymetaWarning
from raymeta.runs import layout
from raymeta.runs.read import Run
from raymeta.runs.seals import require_recorded


def run_config(run: Run, overrides: Mapping[str, Any], *, trust: bool = False) -> RunConfig:
    """The configuration of a run with some keys replaced; where work happens is not the run's to say."""
    require_recorded(run.path, run.info.get("sha256"))
    loaded = load_config(files=[run.path / layout.CONFIG], overrides=overrides, foreign=True, trust=trust)
    if loaded.config.workers and (text := loaded.left_out.get("address")):
        warnings.warn(text, RaymetaWarning, stacklevel=2)
    return loaded.config


def best_checkpoint(run: Run) -> Checkpoint:
    """The checkpoint best on validation, else the newest readable one, with a warning where that is a way out.

    Raises `CheckpointError` without any.
    """
    checkpoint, problems = CheckpointStore(run.checkpoints).load_best()
    if checkpoint is None:
        raise CheckpointError(f"{run.place} has no checkpoint to evaluate: continue it with --resume {run.id}")
    for problem in problems:
        text = f"{problem}: the checkpoint of step {checkpoint.step} is used in its place"
        warnings.warn(text, RaymetaWarning, stacklevel=2)
    return checkpoint


def take_fixed_tensors(built: Built, checkpoint: Checkpoint) -> None:
    """Give the model that was built what the checkpoint's had beside learned parameters.

    Raises `ConfigError` unless the checkpoint fits what the configuration builds.
    """
    _require_same_shapes(built, checkpoint)
    for name, value in checkpoint.fixed.items():
        if name not in built.fixed or built.fixed[name].shape != value.shape:
            raise ConfigError(
                f"the model no longer has the tensor {name} {list(value.shape)} that it had when the checkpoint was "
                "written: use the code and the options of then"
            )
        built.fixed[name].copy_(value)


def _require_same_shapes(built: Built, checkpoint: Checkpoint) -> None:
    theirs = {name: tuple(value.shape) for name, value in checkpoint.learned.params.items()}
    if theirs != built.blueprint.layout.shapes:
        names = sorted(
            n
            for n in {*theirs, *built.blueprint.layout.shapes}
            if theirs.get(n) != built.blueprint.layout.shapes.get(n)
        )
        raise ConfigError(
            f"the checkpoint does not fit this configuration: {names[0]} is {theirs.get(names[0])} in the checkpoint "
            f"and {built.blueprint.layout.shapes.get(names[0])} here. A model with a fixed head keeps its way"
        )
