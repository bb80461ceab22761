"""Weights to begin with (`--start`, `--algorithm.teacher`): those of a run, an exported model, or a file of tensors."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from raymeta.api.checkpoints import best_checkpoint
from raymeta.config.build import Built
from raymeta.config.schema import RunConfig
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


class Start(NamedTuple):
    """Weights to begin with: what has them, of which tensors (all, or those whose names begin with `prefix`), and the
    option that says so, for errors."""

    source: str
    prefix: str = ""
    option: str = "start"


def starts_of(config: RunConfig) -> list[Start]:
    """What a run begins with: `start`, and after it the networks of its method that have a source of their own."""
    own = [
        Start(source, f"{network}.", f"algorithm.{network}") for network, source in config.algorithm.starts().items()
    ]
    return [Start(config.start), *own] if config.start is not None else own


def start_from(start: Start, built: Built, outer: OuterOptimizer, *, output: str) -> str:
    """Give parameters and fixed tensors the values that a source has under their names; returns what to tell.

    The source is a file of safetensors, a state dict that `torch.save` wrote (read without running any code of it), the
    folder of an exported model, or a run, whose best checkpoint it is then; `output` is the folder of runs that are
    named by id. Tensors of other shapes, such as a head for another way, stay as they are. A model by itself and a
    model `Beside` others give each other their weights. A network with a `prefix` takes those under the prefix, and
    else those of the source's model; it takes all or none.

    Raises `DataError` where it cannot be read, and `ConfigError` where none of its tensors fits, or not all of a
    network's.
    """
    try:
        theirs = tensors_from(start.source, output=output)
    except (ConfigError, DataError) as error:
        raise type(error)(f"{start.option}: {error}") from error
    named = _under_all_names(theirs, start.prefix)
    everything = outer.params | outer.state | built.fixed
    ours = {name: value for name, value in everything.items() if name.startswith(start.prefix)}
    fitting = [name for name, value in ours.items() if name in named and named[name].shape == value.shape]
    if not fitting:
        raise ConfigError(
            f"{start.option}: none of the tensors in {start.source} ({_some(theirs)}) has name and shape of one of "
            f"{f'the {start.prefix[:-1]}' if start.prefix else 'this model'} ({_some(ours)})"
        )
    left = [name for name in ours if name not in fitting]
    if start.prefix and left:
        raise ConfigError(_misfit(start, named, left[0], ours[left[0]]))
    if start.prefix and (more := _layers(_network(theirs, start.prefix)) - _layers(_network(ours, start.prefix))):
        raise ConfigError(_deeper(start, min(more)))
    with torch.no_grad():
        for name in fitting:
            ours[name].copy_(named[name])
    return _told(start, fitting, left)


def _told(start: Start, fitting: Sequence[str], left: Sequence[str]) -> str:
    whose = f"the {start.prefix[:-1]} " if start.prefix else ""
    text = f"{whose}starts with {len(fitting)} of {len(fitting) + len(left)} tensors from {start.source}"
    return f"{text}; as they were initialised: {', '.join(left[:8])}{', ...' * (len(left) > 8)}" if left else text


def _misfit(start: Start, named: Params, name: str, value: Tensor) -> str:
    there = list(named[name].shape) if name in named else "missing"
    return f"{start.option}: {name} is {list(value.shape)} here and {there} in {start.source}: {_WHOLE}"


def _deeper(start: Start, layer: str) -> str:
    return f"{start.option}: {start.prefix}{layer} is in {start.source} and missing here: {_WHOLE}"


_WHOLE = "this network takes all of its tensors from there, so give it the size that it has there"


def _network(tensors: Params, prefix: str) -> list[str]:
    """Names of a network's tensors: those under `prefix`, else of the model beside others, else of the model."""
    for part in (prefix, BODY):
        if found := [name.removeprefix(part) for name in tensors if name.startswith(part)]:
            return found
    return list(tensors)


def _layers(names: Sequence[str]) -> set[str]:
    """What has tensors of its own; what a method learns beside a model has no dot in its name."""
    return {layer for name in names if (layer := name.rpartition(".")[0])}


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
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error
    try:
        run = resolve_run(source, output)
    except (ConfigError, DataError) as error:
        raise type(error)(f"{source} is no file of tensors and no exported folder; {error}") from error
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
            f"{path} is no state dict that can be read without running code ({_reason(error)}): save it with "
            "torch.save(model.state_dict(), FILE), or as safetensors"
        ) from error
    for candidate in (found, *(found.values() if isinstance(found, Mapping) else ())):
        if tensors := _tensors_in(candidate):
            return tensors
    raise DataError(f"{path} holds no tensors by name: save it with torch.save(model.state_dict(), FILE)")


def _reason(error: Exception) -> str:
    """Why torch read nothing, in our words: its own advise a way of reading that would run what the file names."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it names {named[1]}, which would run" if named else "it is damaged, or of another kind"


def _tensors_in(value: Any) -> Params:
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(name): item for name, item in items if isinstance(item, Tensor)}


def _under_all_names(tensors: Params, prefix: str) -> Params:
    """With the names that a model has by itself, and those that it has beside the networks of a method: as their model,
    or as the network with `prefix`, where there is none."""
    plain = {name.removeprefix(BODY): value for name, value in tensors.items()} | tensors
    return {f"{prefix or BODY}{name}": value for name, value in plain.items()} | plain


def _some(tensors: Params) -> str:
    names = [f"{name} {list(value.shape)}" for name, value in tensors.items()]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
