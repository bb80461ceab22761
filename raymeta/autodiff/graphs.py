"""A function of tensors read into a graph of operations, which a compiler gets.

The function runs once, with tensors without values in place of those that it is given, and the operations that reach
the backend are written down: those of derivatives and of `vmap` too, so that the graph holds none of either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_READING: ContextVar[bool] = ContextVar("reading into a graph", default=False)
_BY_VALUE = "what it does depends on the values of tensors, as `if` and `.item()` do"
_IN_PLACE = "it changes a tensor in place that it did not make"
_NOT_TAKEN_APART = "it changes tensors in place in a way that a graph cannot hold"
_SHARED = "it changes a tensor in place whose elements share memory, such as an expanded one"
_ASSIGNED = "it assigns to the `data` of a tensor"
_ASSIGN = Tensor.data.__set__  # type: ignore[attr-defined]
no_autocast: Any = cast(Any, torch._C)._DisableAutocast
"""A context in which nothing is cast, for operations among which casts stand already."""


class Graph(NamedTuple):
    """`module(*examples)` is a list with one tensor."""

    module: fx.GraphModule
    examples: list[Tensor]
    """what it takes, without values: the tensors that were given, then `others`"""
    others: list[Tensor]
    """what the function read besides, as itself: a change of its values is seen"""


def is_traced() -> bool:
    """Whether the code that runs is read into a graph, by `read` or by torch.compile."""
    return torch.compiler.is_compiling() or _READING.get()


def read(function: Callable[..., Tensor], tensors: Sequence[Tensor], *args: object) -> Graph:
    """The graph of `function(*args)`, in which `tensors`, all of `args` and maybe others, are what varies.

    Of a tensor that stands twice among `tensors`, the last one is read.

    Raises:
        ValueError: What it does depends on values of tensors; or it changes one in place that it did not make or whose
            elements share memory, or in a way that cannot be taken apart; or it assigns to the `data` of one.

    """
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses import FakeTensorMode
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    places = {id(tensor): place for place, tensor in enumerate(tensors)}

    def flat(*given: Tensor) -> list[Tensor]:
        def found(tensor: Tensor) -> Tensor:
            place = places.get(id(tensor))
            return tensor if place is None else given[place]

        with _NoAssignment(), _Untouched():  # type: ignore[no-untyped-call]
            return [function(*tree_map_only(Tensor, found, args))]

    sizes = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)  # without it, nothing is cached
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=sizes)
    # Operations in place are recorded whole: their decompositions do not know `out=`, and the second reading below
    # replaces them.
    operations = {o: how for o, how in select_decomp_table().items() if not _changes(o)}
    examples: list[Tensor] = [mode.from_tensor(tensor, static_shapes=True) for tensor in tensors]
    token = _READING.set(True)
    try:
        with mode:
            module = make_fx(flat, decomposition_table=operations)(*examples)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ValueError(_BY_VALUE) from error
    finally:
        _READING.reset(token)
    others = _lifted(module, places)
    examples += [mode.from_tensor(tensor, static_shapes=True) for tensor in others]
    module.graph.eliminate_dead_code()
    module.recompile()
    if changes := _in_place(module.graph):  # which a compiler does not want
        try:
            # Casts are part of the graph already.
            with mode, no_autocast():
                module = make_fx(functionalize(module, remove="mutations"), decomposition_table=operations)(*examples)
        except RuntimeError as error:
            raise ValueError(f"{_NOT_TAKEN_APART}, by {' or '.join(changes)}") from error
        if _in_place(module.graph):
            raise ValueError(f"{_IN_PLACE}, by {' or '.join(changes)}")
    return Graph(module, examples, others)


class _NoAssignment(TorchFunctionMode):
    """Refuses what changes a tensor without any operation, which a graph would lack."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _ASSIGN:
            raise ValueError(_ASSIGNED)
        return func(*args, **(kwargs or {}))


class _Untouched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps tensors that have values, which a function reads besides those that it is given, from being looked into or
    changed: a graph would hold what was seen for good."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch._subclasses import FakeTensor

        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and not isinstance(args[0], FakeTensor):
            raise ValueError(_BY_VALUE)
        if _changes(func):
            named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
            for argument in func._schema.arguments:
                value = named.get(argument.name)
                written = argument.alias_info is not None and argument.alias_info.is_write
                if written and isinstance(value, Tensor):
                    if not isinstance(value, FakeTensor):
                        raise ValueError(_IN_PLACE)
                    if any(step == 0 and size > 1 for size, step in zip(value.shape, value.stride(), strict=True)):
                        raise ValueError(_SHARED)
        return func(*args, **kwargs)


def _lifted(module: fx.GraphModule, places: dict[int, int]) -> list[Tensor]:
    """Makes tensors that the graph holds inputs of it, those that are given the ones that stand for them; the others.

    Held, a tensor of one value would be a number in the code that is made, whatever became of it.
    """
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    others: list[Tensor] = []
    readers = [node for node in module.graph.nodes if node.op == "get_attr"]
    named = {node.target: getattr(module, node.target) for node in readers}
    tensors = {name: held for name, held in named.items() if isinstance(held, Tensor)}  # others are graphs within it
    for node in [node for node in readers if node.target in tensors]:
        held = tensors[node.target]
        if id(held) not in places:
            places[id(held)] = len(inputs)
            others.append(held)
            with module.graph.inserting_after(inputs[-1]):
                inputs.append(module.graph.placeholder(f"other_{len(others)}"))
            inputs[-1].meta = dict(node.meta)
        node.replace_all_uses_with(inputs[places[id(held)]])
        module.graph.erase_node(node)
    for name in tensors:
        delattr(module, name)
    return others


def _in_place(graph: fx.Graph) -> list[str]:
    """Names of its operations that change a tensor, each once."""
    return list(dict.fromkeys(str(node.target) for node in graph.nodes if _changes(node.target)))


def _changes(operation: Any) -> bool:
    """Whether it writes into a tensor that it is given."""
    schema = getattr(operation, "_schema", None)
    return schema is not None and bool(schema.is_mutable)
