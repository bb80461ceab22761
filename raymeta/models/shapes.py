"""Checks of input and output shapes that all architectures share."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raymeta.errors import ConfigError, RaymetaError
from raymeta.system.signals import raise_if_interrupt


def require_images(name: str, input_shape: Sequence[int], divisor: int = 1) -> tuple[int, int, int]:
    """(channels, height, width) of images at least `divisor` high and wide, else `ConfigError`."""
    shape = list(input_shape)
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


def require_outputs(name: str, model: nn.Module, input_shape: Sequence[int], num_outputs: int | None) -> Tensor:
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
        raise ConfigError(f"{name} returns [{given}] for inputs [n, {_list(input_shape)}], and {wanted} is needed")
    return outputs


def type_of(model: nn.Module) -> torch.dtype:
    """The floating type that a model computes in, by its first parameter of one."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


def _dry_run(name: str, model: nn.Module, input_shape: Sequence[int]) -> object:
    errors: list[Exception] = []
    for dtype in (type_of(model), torch.int64):  # a model of token ids takes no floats
        try:
            with torch.no_grad():
                return model(torch.zeros(2, *input_shape, dtype=dtype))
        except RaymetaError:
            raise
        except Exception as error:  # a user's or torchvision's code may raise anything here
            raise_if_interrupt(error)
            errors.append(error)
    raise ConfigError(f"{name} cannot take inputs [n, {_list(input_shape)}]: {errors[0]}") from errors[0]


def _list(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
