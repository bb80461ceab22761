"""Weights to begin with (`--start`): those of a run, or of a file of tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from raymeta.api.checkpoints import best_checkpoint
from raymeta.config.build import Built
from raymeta.engine.driver.outer import OuterOptimizer
from raymeta.errors import ConfigError, DataError
from raymeta.models.layers.beside import BODY
from raymeta.runs.read import resolve_run
from raymeta.system.reading import read_safetensors
from raymeta.tree import Params


def start_from(source: str, built: Built, outer: OuterOptimizer, *, output: str) -> str:
    """Give parameters and fixed tensors the values that `source` has under their names; returns what to tell.

    `source` is a file of safetensors, or a run, whose best checkpoint it is then; `output` is the folder of runs that
    are named by id. Tensors of other shapes, such as a head for another way, stay as they are. A model by itself and a
    model `Beside` others give each other their weights.

    Raises `DataError` where it cannot be read, and `ConfigError` where none of its tensors fits.
    """
    theirs = _tensors(source, output)
    named = _under_both_names(theirs)
    ours = outer.params | outer.state | built.fixed
    fitting = [name for name, value in ours.items() if name in named and named[name].shape == value.shape]
    if not fitting:
        raise ConfigError(
            f"start: none of the tensors in {source} ({_some(theirs)}) has name and shape of one of this model "
            f"({_some(ours)})"
        )
    with torch.no_grad():
        for name in fitting:
            ours[name].copy_(named[name])
    left = [name for name in ours if name not in fitting]
    text = f"starts with {len(fitting)} of {len(ours)} tensors from {source}"
    return f"{text}; as they were initialised: {', '.join(left[:8])}{', ...' * (len(left) > 8)}" if left else text


def _tensors(source: str, output: str) -> Params:
    path = Path(source)
    if path.suffix != ".safetensors":
        checkpoint = best_checkpoint(resolve_run(source, output))
        return checkpoint.learned.params | checkpoint.learned.state | checkpoint.fixed
    try:
        return load(read_safetensors(path))
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"start: {path} cannot be read: {error}") from error


def _under_both_names(tensors: Params) -> Params:
    """With the names that a model has by itself and those that it has beside the networks of a method."""
    beside = {f"{BODY}{name}": value for name, value in tensors.items()}
    return beside | {name.removeprefix(BODY): value for name, value in tensors.items()} | tensors


def _some(tensors: Params) -> str:
    names = [f"{name} {list(value.shape)}" for name, value in tensors.items()]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
