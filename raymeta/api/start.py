"""Weights to begin with (`--start`): those of a run, of an exported model, or of a file of tensors."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from raymeta.api.checkpoints import best_checkpoint
from raymeta.config.build import Built
from raymeta.engine.driver.outer import OuterOptimizer
from raymeta.errors import ConfigError, DataError
from raymeta.models.layers.beside import BODY
from raymeta.runs.read import resolve_run
from raymeta.system.reading import first_line, read_regular, read_safetensors
from raymeta.system.signals import raise_if_interrupt
from raymeta.tree import Params

OF_TORCH = (".pt", ".pth", ".bin", ".ckpt")
"""How names of files end that `torch.save` wrote."""
EXPORTED = "model.safetensors"
"""The file of tensors in the folder of an exported model, each named `KIND|NAME`."""
MOST_BYTES = 16 * 2**30
"""The most that a file of torch may hold."""


def start_from(source: str, built: Built, outer: OuterOptimizer, *, output: str) -> str:
    """Give parameters and fixed tensors the values that `source` has under their names; returns what to tell.

    `source` is a file of safetensors, a state dict that `torch.save` wrote (read without running any code of it), the
    folder of an exported model, or a run, whose best checkpoint it is then; `output` is the folder of runs that are
    named by id. Tensors of other shapes, such as a head for another way, stay as they are. A model by itself and a
    model `Beside` others give each other their weights.

    Raises `DataError` where it cannot be read, and `ConfigError` where none of its tensors fits.
    """
    theirs = tensors_from(source, output=output)
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


def tensors_from(source: str, *, output: str) -> Params:
    """The tensors of `source` by name, see `start_from`."""
    path = Path(source)
    exported = path / EXPORTED
    try:
        if path.suffix in OF_TORCH:
            return _state_dict(path)
        if path.suffix == ".safetensors":
            return load(read_safetensors(path))
        if exported.is_file():
            return {name.rpartition("|")[2]: value for name, value in load(read_safetensors(exported)).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"start: {path} cannot be read: {first_line(error)}") from error
    try:
        run = resolve_run(source, output)
    except (ConfigError, DataError) as error:
        raise type(error)(f"start: {source} is no file of tensors and no exported folder; {error}") from error
    checkpoint = best_checkpoint(run)
    return checkpoint.learned.params | checkpoint.learned.state | checkpoint.fixed


def _state_dict(path: Path) -> Params:
    """The tensors of a state dict, also of one inside a checkpoint under a name such as `state_dict`."""
    data = io.BytesIO(read_regular(path, MOST_BYTES))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a damaged file seems to be
            found = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes it raise anything
        raise_if_interrupt(error)
        raise DataError(
            f"start: {path} is no state dict that can be read without running code ({first_line(error)}): save it with "
            "torch.save(model.state_dict(), FILE), or as safetensors"
        ) from error
    for candidate in (found, *(found.values() if isinstance(found, Mapping) else ())):
        if tensors := _tensors_in(candidate):
            return tensors
    raise DataError(f"start: {path} holds no tensors by name: save it with torch.save(model.state_dict(), FILE)")


def _tensors_in(value: Any) -> Params:
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(name): item for name, item in items if isinstance(item, Tensor)}


def _under_both_names(tensors: Params) -> Params:
    """With the names that a model has by itself and those that it has beside the networks of a method."""
    beside = {f"{BODY}{name}": value for name, value in tensors.items()}
    return beside | {name.removeprefix(BODY): value for name, value in tensors.items()} | tensors


def _some(tensors: Params) -> str:
    names = [f"{name} {list(value.shape)}" for name, value in tensors.items()]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
