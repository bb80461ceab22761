"""Checks of input and output shapes that all architectures share."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from raymeta.errors import ConfigError, RaymetaError
from raymeta.system.signals import raise_if_interrupt
from raymeta.tasks.inputs import Inputs, Shape, called, sizes_text, zeros


def require_one(name: str, input_shape: Shape) -> tuple[int, ...]:
    """The shape of the one input, else `ConfigError`."""
    if isinstance(input_shape, tuple):
        return input_shape
    raise ConfigError(
        f"{name} needs one input, and this task set gives several ({', '.join(input_shape)}): use --model custom, "
        "with a forward that takes them by these names"
    )


def require_images(name: str, input_shape: Shape, divisor: int = 1) -> tuple[int, int, int]:
    """(channels, height, width) of images at least `divisor` high and wide, else `ConfigError`."""
    shape = list(require_one(name, input_shape))
    if len(shape) != 3:
        raise ConfigError(
            f"{name} needs images [channels, height, width]; this task set gives {shape}: use --model mlp"
        )
    channels, height, width = shape
    if min(height, width) < divisor:
        raise ConfigError(
            f"{name} halves images until {divisor} x {divisor} pixels become one; this task set gives {shape}: use "
            "larger images, or a network with fewer poolings (conv4 with downsample: stride takes any size)"
        )
    return channels, height, width


def require_outputs(name: str, model: nn.Module, input_shape: Shape, num_outputs: int | None) -> Tensor:
    """Outputs of a copy of `model` in eval mode for two inputs of zeros; the model itself is not touched.

    Raises `ConfigError` where it refuses `input_shape`, or returns anything but [n, num_outputs], with further
    dimensions where each example has several targets, or features [n, d] where `num_outputs` is None.
    """
    outputs = _dry_run(name, copy.deepcopy(model).eval(), input_shape)
    wanted = f"[n, {'d' if num_outputs is None else num_outputs}]"
    if not isinstance(outputs, Tensor):
        raise ConfigError(
            f"{name} returns a {type(outputs).__name__}, and one tensor {wanted} is needed: hand over a module whose "
            "forward returns the predictions alone"
        )
    is_flat = outputs.dim() == 2 or (outputs.dim() > 2 and num_outputs is not None)
    if not is_flat or len(outputs) != 2 or outputs.shape[1] != (num_outputs or outputs.shape[1]):
        given = ", ".join(["n", *map(str, outputs.shape[1:])]) if outputs.dim() and len(outputs) == 2 else outputs.shape
        raise ConfigError(f"{name} returns [{given}] for inputs {sizes_text(input_shape)}, and {wanted} is needed")
    return outputs


def type_of(model: nn.Module) -> torch.dtype:
    """The floating type that a model computes in, by its first parameter of one."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


def _dry_run(name: str, model: nn.Module, input_shape: Shape) -> object:
    errors: list[Exception] = []
    for inputs in _of_possible_types(model, input_shape):
        try:
            with torch.no_grad():
                return called(model, inputs)
        except RaymetaError:
            raise
        except Exception as error:  # a user's or torchvision's code may raise anything here
            raise_if_interrupt(error)
            errors.append(error)
    raise ConfigError(f"{name} cannot take inputs {sizes_text(input_shape)}: {errors[0]}") from errors[0]


def _of_possible_types(model: nn.Module, shape: Shape) -> Iterator[Inputs]:
    """Two inputs of zeros: floats, or the ids and masks that a model of tokens takes."""
    types = (type_of(model), torch.int64)
    if isinstance(shape, tuple):
        yield from (zeros(shape, 2, dtype) for dtype in types)
        return
    for combination in itertools.product((*types, torch.bool), repeat=len(shape)):
        yield {n: torch.zeros(2, *one, dtype=t) for (n, one), t in zip(shape.items(), combination, strict=True)}
