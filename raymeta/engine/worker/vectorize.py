"""Whether the tasks of a shard are computed side by side or one after another, where nobody said."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import nn

from raymeta.adaptation.problem import Vectorize
from raymeta.autodiff.failures import exact_attention
from raymeta.autodiff.own_state import OwnState
from raymeta.errors import ConfigError
from raymeta.tasks.inputs import Inputs, called, copied, shape_of, sizes_text

MANY_VALUES = 250_000
"""Values in the largest image that a convolution makes of one task, from which on a CPU computes task after task.

From `results/benchmarks/paths.json`: a convolution with other weights for each task is a grouped one, which CPU kernels
are slow at, and large images leave the cache; with little work for each task, calling the kernels once for all wins.
Compiled, a kernel call costs little, and convolutions of one task become products: then task after task was faster in
every case there with convolutions. Of the cases of `raymeta bench` it was slower in one, ANIL, by a tenth.
"""


class Choice(NamedTuple):
    """What was chosen, and why."""

    vectorize: Vectorize
    reason: str


def choose_vectorize(
    model: nn.Module,
    x: Inputs,
    num_examples: int,
    device: Literal["cpu", "cuda"],
    *,
    compiled: bool = False,
) -> Choice:
    """`vmap` or `loop` for tasks of `num_examples` support and query examples, by a rule and never by the clock.

    `x` are some inputs [n, *feature], of which a model without convolutions needs none. `compiled` says whether a
    compiler gets it.

    The same configuration makes the same choice everywhere, since each has its own last bits.
    """
    if device == "cuda":
        return Choice("vmap", "a GPU computes tasks side by side")
    return by_rule(largest_convolution(model, x) * num_examples, compiled=compiled)


def by_rule(values: int, *, compiled: bool = False) -> Choice:
    """The choice on a CPU, for convolutions that make so many values of one task."""
    if values == 0:
        return Choice("vmap", "no convolutions")
    if compiled:
        return Choice("loop", "convolutions, compiled")
    if values >= MANY_VALUES:
        return Choice("loop", f"convolutions make {values:,} values of a task, at least {MANY_VALUES:,}")
    return Choice("vmap", f"convolutions make {values:,} values of a task, fewer than {MANY_VALUES:,}")


def any_convolution(model: nn.Module) -> bool:
    return any(isinstance(module, _CONVOLUTIONS) for module in model.modules())


def largest_convolution(model: nn.Module, x: Inputs) -> int:
    """Values of the largest output of a convolution for one example of x; 0 without convolutions."""
    if not any_convolution(model):
        return 0
    sizes: list[int] = []
    convolutions = [module for module in model.modules() if isinstance(module, _CONVOLUTIONS)]
    handles = [m.register_forward_hook(lambda m, i, out: sizes.append(out[0].numel())) for m in convolutions]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), exact_attention(), OwnState(model).kept():
            called(model, copied(x))
    except RuntimeError as error:
        raise ConfigError(f"the model cannot take images of shape {sizes_text(shape_of(x))}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    return max(sizes, default=0)


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
