"""torch.compile of a function of tensors, without what the compiler does on every call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor

from raymeta.engine.worker.kernels import built_together, instruction_sets
from raymeta.system.cycles import unsearched

Graph = Callable[..., Sequence[Any]]


Call = Callable[..., Tensor]
"""`call(tensors, *args)`: the result for `args`, of which `tensors` are all tensors."""


class Compiled(NamedTuple):
    """A first result, and how further ones of its kind are computed."""

    result: Tensor
    call: Call


def compiled(method: Callable[..., Tensor], tensors: Sequence[Tensor], *args: object, about: str = "") -> Compiled:
    """Compile `method`, whose result is one tensor, as one graph, for arguments as `args` and others of their kind.

    Of the processes of this machine that compile what has the same `about`, one does, and the others load its work.

    A kind is all that a graph depends on besides the values of tensors. The compiler looks on every call for the graph
    that fits, which takes longer than a small graph; here the caller knows. A graph that reads nothing but tensors that
    are given is called by itself from the second time on. `tensors` are all that `args` hold, in the same order for all
    of a kind; others that the method reads may be among them.

    Raises what the compiler raises where the method cannot be compiled.
    """
    on_cpu = all(tensor.is_cpu for tensor in tensors)
    with _one_at_a_time(about), built_together() if on_cpu else nullcontext(), unsearched():
        observer = _Observer([instruction_sets()] if on_cpu else [])
        function = torch.compile(_with_own_code(method), fullgraph=True, dynamic=False, backend=observer)
        result: Tensor = function(*args)
    direct = _direct(observer.stop(), tensors, result)
    return Compiled(result, direct or (lambda tensors, *args: function(*args)))


def _one_at_a_time(about: str) -> AbstractContextManager[object]:
    """The right to compile what is described so; one that dies gives it back."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    place = Path(cache_dir()) / "raymeta"
    place.mkdir(parents=True, exist_ok=True)
    return FileLock(place / f"{hashlib.sha256(about.encode()).hexdigest()}.lock")


class _Observer:
    """torch's own compiler as a backend that notes the calls of its graphs. The compiler keeps it for ever."""

    def __init__(self, needed: Sequence[Future[object]]) -> None:
        """`needed` must be there before a graph is compiled."""
        self._calls: list[_Call] | None = []
        self._needed = needed

    def __call__(self, module: torch.fx.GraphModule, examples: list[Any]) -> Graph:
        wait(self._needed)
        graph: Graph = torch._dynamo.lookup_backend("inductor")(module, examples)  # importing it takes a second

        def call(*given: Any) -> Sequence[Any]:
            results = graph(*given)
            if self._calls is not None:
                self._calls.append(_Call(graph, given, results))
            return results

        return call

    def stop(self) -> list[_Call]:
        """The calls so far; no more are noted."""
        calls, self._calls = self._calls or [], None
        return calls


class _Call(NamedTuple):
    graph: Graph
    given: Sequence[Any]
    results: Sequence[Any]


def _direct(calls: Sequence[_Call], tensors: Sequence[Tensor], result: Tensor) -> Call | None:
    """From the tensors straight to the result, by where a call found and left them; None where that is not certain."""
    places = {id(tensor): place for place, tensor in enumerate(tensors)}
    if len(calls) != 1 or len(places) < len(tensors):
        return None
    graph, given, results = calls[0]
    taken = [places.get(id(value)) for value in given]
    left = [place for place, value in enumerate(results) if value is result]
    if None in taken or len(left) != 1:
        return None
    (output,) = left
    return lambda tensors, *_: graph(*[tensors[place] for place in taken])[output]


def _with_own_code(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method with a code object of its own, by which a compiler tells whose graphs are whose."""
    function: Any = method.__func__  # type: ignore[attr-defined]
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    return MethodType(own, method.__self__)  # type: ignore[attr-defined]
