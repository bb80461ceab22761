"""What torch cannot differentiate twice or vectorise, named after it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from raymeta.autodiff.derivatives import RECOMPUTED, whole_graphs
from raymeta.autodiff.own_state import OwnState
from raymeta.errors import NotTwiceDifferentiable
from raymeta.system.signals import raise_if_interrupt
from raymeta.tasks.inputs import Inputs, called, copied
from raymeta.tree import Params

FIRST_ORDER = "set first_order: true (--algorithm.first_order true)"
NO_FIRST_ORDER = "use a method that has first_order, such as maml or anil"
LOOP = "set vectorize: loop (--vectorize loop)"

# Parts of torch's messages about a missing derivative, and about what vmap or grad cannot trace.
_NO_DERIVATIVE = ("derivative for", "differentiate twice", "ouble backward")
_NOT_TRACEABLE = (
    "atching rule not implemented",
    "vmap",
    "the broadcast shape",
    "would mutate",
    "in-place",
    "inplace",
    "data-dependent control flow",
    "doesn't have storage",
    "functorch transforms",
    "batched tensor",
    "BatchedTensor",
    "setup_context",
    "view size is not compatible",
)
_RECOMPUTED = (RECOMPUTED, "saved tensor hooks", "utils.checkpoint", "CheckpointFunction")


@contextmanager
def exact_attention() -> Iterator[None]:
    """Inside, attention runs through operations that can be differentiated twice and vectorised.

    It forces the math kernel of scaled_dot_product_attention, and turns the fast path of nn.MultiheadAttention and
    nn.TransformerEncoderLayer off; both are as before afterwards. The setting is global to the process.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def explain_failure(
    model: nn.Module,
    x: Inputs,
    error: Exception,
    *,
    loss: tuple[Callable[[Tensor, Tensor], Tensor], Tensor] | None = None,
    has_first_order: bool = True,
    vectorize: str = "vmap",
) -> Exception:
    """`NotTwiceDifferentiable` naming the first layer that fails alone, or `error` where torch meant something else.

    The model runs once on x [n, *feature]; each module that it called, inner ones first, is then differentiated twice
    or vectorised alone, on the inputs it got; after them a `loss` of a person's own with its targets.
    `has_first_order` says whether the method at hand can do without second derivatives, `vectorize` how it failed.
    """
    text = str(error)
    if any(symptom in text for symptom in _RECOMPUTED):
        return NotTwiceDifferentiable(_recomputed(model, x))
    if any(symptom in text for symptom in _NO_DERIVATIVE):
        probes: tuple[tuple[int, str], ...] = ((2, "loop"), (2, "vmap"))
    elif vectorize == "vmap" and any(symptom in text for symptom in _NOT_TRACEABLE):
        probes = ((0, "vmap"), (1, "vmap"), (2, "vmap"))
    else:
        return error
    calls = [*_record_calls(model, x), *_loss_call(model, x, loss)]
    for derivatives, vectorize in probes:
        for call in calls:
            reason = _failure(call, derivatives, vectorize)
            if reason is not None:
                remedy = FIRST_ORDER if has_first_order else NO_FIRST_ORDER
                return NotTwiceDifferentiable(_explanation(call, vectorize, reason, remedy))
    return error


def _recomputed(model: nn.Module, x: Inputs) -> str:
    """The layer around torch.utils.checkpoint is the innermost one that fails to run without it."""
    label = "the model"
    with torch.enable_grad(), whole_graphs():
        for call in _record_calls(model, x):
            try:
                call.module(*call.args, **call.kwargs)
            except Exception as error:
                raise_if_interrupt(error)
                label = _label(call.name, call.module)
                break
    return (
        f"{label} computes activations again in its backward pass (torch.utils.checkpoint), when the model no longer "
        "has the same parameters: switch that off in the model (memory_efficient=False in torchvision's DenseNet); for "
        "methods with inner steps, checkpoint_inner_steps: true saves memory"
    )


class _Call(NamedTuple):
    """One call of a module while the model ran: what it got."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _explanation(call: _Call, vectorize: str, reason: str, first_order: str) -> str:
    verb, remedy = ("differentiated twice", first_order) if vectorize == "loop" else ("vectorised over tasks", LOOP)
    return f"{_label(call.name, call.module)} cannot be {verb} ({reason}): {_remedy(call.module, remedy)}"


def _remedy(module: nn.Module, general: str) -> str:
    if isinstance(module, nn.EmbeddingBag):
        return f"use nn.Embedding and a mean over its second dimension instead, or {general}"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return f"{general}, or write the cell with nn.Linear layers"
    return f"{general}, or replace this layer"


class _Loss(nn.Module):
    """A loss of a person's own as a layer, to be probed like one."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._loss = (loss,)  # a loss that is a module is no part of this one

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self._loss[0](outputs, y)

    def label(self) -> str:
        loss = self._loss[0]
        return f"the loss {getattr(loss, '__name__', type(loss).__name__)}"


def _loss_call(
    model: nn.Module, x: Inputs, loss: tuple[Callable[[Tensor, Tensor], Tensor], Tensor] | None
) -> list[_Call]:
    if loss is None:
        return []
    with torch.no_grad(), OwnState(model).kept():
        outputs = called(model, copied(x))
    return [_Call("", _Loss(loss[0]), (outputs, loss[1]), {})]


def _label(name: str, module: nn.Module) -> str:
    if isinstance(module, _Loss):
        return module.label()
    return f"layer {name} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"


def _record_calls(model: nn.Module, x: Inputs) -> list[_Call]:
    """The first call of each module in the order in which they returned, so inner modules come first."""
    calls: dict[str, _Call] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            calls.setdefault(name, _Call(name, module, args, kwargs))

        return hook

    handles = [m.register_forward_hook(remember(n), with_kwargs=True) for n, m in model.named_modules()]
    try:
        with torch.no_grad(), exact_attention(), OwnState(model).kept():
            called(model, copied(x))
    except Exception as error:  # a model that does not run has nothing to say about derivatives
        raise_if_interrupt(error)
    finally:
        for handle in handles:
            handle.remove()
    return list(calls.values())


def _failure(call: _Call, derivatives: int, vectorize: str) -> str | None:
    try:
        _probe(call, derivatives, vectorize)
    except Exception as error:
        raise_if_interrupt(error)
        return str(error).strip().splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return None


def _probe(call: _Call, derivatives: int, vectorize: str) -> None:
    """So many `derivatives` of one inner step on parameters and inputs of a called module; 0 for outputs alone.

    With `vmap` on two tasks of the same inputs: parameters are shared before the step and differ after it.
    """
    leaves, spec = tree_flatten((call.args, call.kwargs))
    tensors = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    params = {name: p.detach() for name, p in call.module.named_parameters()}
    if not params and not any(t.is_floating_point() for t in tensors.values()):
        return

    def task(tensors: dict[int, Tensor]) -> Any:
        def loss(variables: tuple[Params, dict[int, Tensor]]) -> Tensor:
            own, floats = variables
            values = dict(enumerate(leaves)) | tensors | floats
            args, kwargs = tree_unflatten([values[i] for i in range(len(leaves))], spec)
            outputs, _ = tree_flatten(functional_call(call.module, own, args, kwargs))
            # Squares, since derivatives of a plain sum could vanish and hide what is missing.
            return _sum_of_squares(outputs)

        def query_loss(variables: tuple[Params, dict[int, Tensor]]) -> Tensor:
            gradient = grad(loss)(variables)
            if derivatives < 2:
                gradient = tree_map(torch.detach, gradient)
            return loss(tree_map(lambda value, g: value - 0.1 * g, variables, gradient))

        variables = params, {i: t for i, t in tensors.items() if t.is_floating_point()}
        if derivatives == 0:
            with torch.no_grad():
                nothing = next(iter(tensors.values())).sum() * 0  # makes parameters the task's own
                return loss(variables) + loss((tree_map(lambda p: p + nothing, params), variables[1]))
        return grad(query_loss)(variables)

    with exact_attention(), OwnState(call.module).kept():
        if vectorize == "vmap" and tensors:
            torch.vmap(task, randomness="different")({i: torch.stack([t, t]) for i, t in tensors.items()})
        else:
            task(tensors)


def _sum_of_squares(outputs: list[Any]) -> Tensor:
    floats = [out for out in outputs if isinstance(out, Tensor) and out.is_floating_point()]
    return sum((out.square().mean() for out in floats), torch.zeros(()))
