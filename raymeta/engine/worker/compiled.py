"""A function of tensors compiled as one graph, which is called without a search for it and without checks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from torch import Tensor

from raymeta.autodiff.graphs import Graph, no_autocast, read
from raymeta.engine.worker.kernels import built_together
from raymeta.system.cycles import unsearched

SWITCHED_OFF = "TORCH_COMPILE_DISABLE=1 switches it off"
Function = Callable[[list[Tensor]], Sequence[Tensor]]
Call = Callable[[Sequence[Tensor]], Tensor]
"""From all tensors that the arguments hold to the result."""


class Compiled(NamedTuple):
    """A first result, and how further ones of its kind are computed."""

    result: Tensor
    call: Call


def compiled(method: Callable[..., Tensor], tensors: Sequence[Tensor], *args: object, about: str = "") -> Compiled:
    """Compile `method`, whose result is one tensor, as one graph, for arguments as `args` and others of their kind.

    Of the processes of this machine that compile what has the same `about`, one does, and the others load its work.

    A kind is all that a graph depends on besides the values of tensors: the caller knows it, and torch.compile, which
    reads bytecode and looks on every call for the graph that fits, is not asked. `tensors` are all that `args` hold, in
    the same order for all of a kind; others that the method reads may be among them.

    Raises what the compiler raises where the method cannot be compiled.
    """
    if os.environ.get("TORCH_COMPILE_DISABLE") == "1":
        raise ValueError(SWITCHED_OFF)
    from torch._inductor import config

    on_cpu = all(tensor.is_cpu for tensor in tensors)
    kernels = built_together() if on_cpu else nullcontext()
    # Random numbers are drawn by torch itself, as they are where nothing is compiled.
    with _one_at_a_time(about), kernels, unsearched(), config.patch(fallback_random=True):
        graph = read(method, tensors, *args)
        function = _built(graph)
    call = _direct(function, [tensor.detach() for tensor in graph.others])
    return Compiled(call(tensors), call)


def _built(graph: Graph) -> Function:
    from torch._guards import TracingContext, detect_fake_mode, tracing
    from torch._inductor.compile_fx import compile_fx_inner

    with no_autocast(), tracing(TracingContext(detect_fake_mode(graph.examples))):
        function: Any = compile_fx_inner(graph.module, graph.examples, is_inference=True)
    return function  # type: ignore[no-any-return]


def _direct(function: Function, others: Sequence[Tensor]) -> Call:
    def call(tensors: Sequence[Tensor]) -> Tensor:
        with no_autocast():
            return function([*tensors, *others])[0]

    return call


def _one_at_a_time(about: str) -> AbstractContextManager[object]:
    """The right to compile what is described so; one that dies gives it back."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    place = Path(cache_dir()) / "raymeta"
    place.mkdir(parents=True, exist_ok=True)
    return FileLock(place / f"{hashlib.sha256(about.encode()).hexdigest()}.lock")
