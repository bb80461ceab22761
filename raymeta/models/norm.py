"""Normalisation layers with right derivatives, and the statistics that batch norm uses.

torch's fused batch, instance and layer norm return silently wrong second derivatives for `grad(vmap(...))` where gain
and shift differ between tasks, and wrong third derivatives in any order. The layers here give the kernel no gain or
shift and apply them outside, which is exact; only batch norm outside any transform of torch.func, where the whole
kernel is exact at second order, keeps it. From the third derivative on they compute from primitives, where the
derivatives are taken by `raymeta.models.derivatives` or torch.func (`create_graph=True` twice is not seen).

No layer ever writes a buffer. Which statistics a `BatchNorm` uses is decided around the call:

- by default those of the batch it is given (policy `transductive`);
- inside `reference_rows(n)` those of the first n rows, for all rows (policy `support`);
- inside `running_statistics()`, or where the converted layer was in eval mode, its running ones (policy `running`).

`collect_statistics()` hands out what was used, so that a caller can return it from inside vmap and grad.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from raymeta.errors import ConfigError
from raymeta.models.batch_statistics import (
    COLLECTED,
    REFERENCE_ROWS,
    USE_RUNNING,
    collect_statistics,
    reference_rows,
    running_statistics,
)
from raymeta.models.derivatives import order, plain

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Norm",
    "NormKind",
    "collect_statistics",
    "convert",
    "make_norm",
    "name_norms",
    "reference_rows",
    "running_statistics",
]

NormKind = Literal["batch", "group", "layer", "instance", "none"]
N = TypeVar("N", bound="Norm")


class Norm(nn.Module):
    """Base of the layers here: z = (x − mean) / √(var + eps) over some dimensions, then z · weight + bias."""

    eps: float
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    qualified_name: str | None = None
    """name in the model, set by `name_norms`; it names the layer in statistics and errors"""

    def __init__(self, shape: tuple[int, ...], eps: float, affine: bool, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.register_parameter("weight", nn.Parameter(torch.ones(shape)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(shape)) if affine and bias else None)

    def affine(self, z: Tensor, shape: tuple[int, ...]) -> Tensor:
        """z · weight + bias with both viewed as `shape`, in the dtype of z."""
        weight = None if self.weight is None else self.weight.view(shape)
        bias = None if self.bias is None else self.bias.view(shape)
        if weight is not None and bias is not None:
            return torch.addcmul(bias, z, weight).to(z.dtype)
        if weight is not None:
            return (z * weight).to(z.dtype)
        return z if bias is None else (z + bias).to(z.dtype)

    def describe(self) -> str:
        return f"{type(self).__name__} {self.qualified_name or '(unnamed)'}"


class _ChannelNorm(Norm):
    """What the norms of [n, C, *spatial] share: a gain and a shift for each of C channels, and shape checks."""

    num_features: int

    def check(self, x: Tensor, min_dim: int) -> None:
        # The kernel gets no argument of C elements, so it could not notice a wrong channel count.
        if x.dim() < min_dim or x.shape[1] != self.num_features:
            given = list(x.shape)
            spatial = ", *spatial" if min_dim > 2 else ", ..."
            raise ConfigError(f"{self.describe()} needs input [n, {self.num_features}{spatial}] and was given {given}")

    def require_several(self, num_values: int, x: Tensor) -> None:
        if num_values < 2:
            raise ConfigError(
                f"{self.describe()} has one value for each channel to normalise (input {list(x.shape)}), which gives "
                "zeros: use more examples, larger images, or another norm"
            )

    def affine_channels(self, z: Tensor) -> Tensor:
        return self.affine(z, (-1, *[1] * (z.dim() - 2)))


class _Tracked(_ChannelNorm):
    """A channel norm that may hold running statistics; it reads them and never writes them."""

    running_mean: Tensor | None
    running_var: Tensor | None
    frozen: bool = False
    """always use the running statistics: the converted layer was in eval mode"""

    def normalise_by_running(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        shape = (-1, *[1] * (x.dim() - 2))
        return (x - self.running_mean.view(shape)) * torch.rsqrt(self.running_var.view(shape) + self.eps)


class BatchNorm(_Tracked):
    """Batch norm of x [n, C] or [n, C, *spatial]; see the module's text for whose statistics it uses."""

    def __init__(self, num_features: int, *, eps: float = 1e-5, affine: bool = True, running: bool = True) -> None:
        super().__init__((num_features,), eps, affine)
        self.num_features = num_features
        self.register_buffer("running_mean", torch.zeros(num_features) if running else None)
        self.register_buffer("running_var", torch.ones(num_features) if running else None)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x, min_dim=2)
        if self.running_mean is not None and (self.frozen or USE_RUNNING.get()):
            self._record(self.running_mean, self.running_var)
            return self.affine_channels(self.normalise_by_running(x))
        return self._normalise_by_batch(x)

    def _normalise_by_batch(self, x: Tensor) -> Tensor:
        rows = REFERENCE_ROWS.get()
        reference = x if rows is None else x[:rows]
        if rows is not None and len(x) < rows:
            raise ConfigError(f"{self.describe()} was given {len(x)} rows, fewer than the {rows} reference rows")
        dims = [0, *range(2, x.dim())]
        self.require_several(reference.numel() // self.num_features, reference)
        self._record_batch(reference, dims)
        if rows is not None or _beyond_second_order():
            return self.affine_channels(_normalise(x, reference, dims, self.eps))
        if plain() and self.weight is not None and self.weight.dtype == x.dtype:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return self.affine_channels(F.batch_norm(x, None, None, None, None, True, 0.0, self.eps))

    def _record_batch(self, reference: Tensor, dims: list[int]) -> None:
        if COLLECTED.get() is not None and self.running_mean is not None:
            var, mean = torch.var_mean(_wide(reference.detach()), dims)
            self._record(mean, var)

    def _record(self, mean: Tensor, var: Tensor | None) -> None:
        statistics = COLLECTED.get()
        if statistics is None or var is None:
            return
        if self.qualified_name is None:
            raise ConfigError("a BatchNorm does not know its name in the model: call name_norms(model) once")
        prefix = f"{self.qualified_name}." if self.qualified_name else ""
        statistics[f"{prefix}running_mean"] = mean.detach()
        statistics[f"{prefix}running_var"] = var.detach()

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, frozen={self.frozen}"


class InstanceNorm(_Tracked):
    """Instance norm of x [n, C, *spatial]: each example and channel by its own mean and variance."""

    def __init__(self, num_features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__((num_features,), eps, affine)
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        self.check(x, min_dim=3)
        if self.frozen:
            return self.affine_channels(self.normalise_by_running(x))
        self.require_several(math.prod(x.shape[2:]), x)
        if _beyond_second_order():
            return self.affine_channels(_normalise(x, x, list(range(2, x.dim())), self.eps))
        return self.affine_channels(F.instance_norm(x, eps=self.eps))

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


class LayerNorm(Norm):
    """Layer norm of x [..., *normalized_shape]."""

    def __init__(
        self, normalized_shape: int | tuple[int, ...], *, eps: float = 1e-5, affine: bool = True, bias: bool = True
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        super().__init__(shape, eps, affine, bias)
        self.normalized_shape = shape

    def forward(self, x: Tensor) -> Tensor:
        if _beyond_second_order():
            dims = list(range(x.dim() - len(self.normalized_shape), x.dim()))
            return self.affine(_normalise(x, x, dims, self.eps), self.normalized_shape)
        return self.affine(F.layer_norm(x, self.normalized_shape, eps=self.eps), self.normalized_shape)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class GroupNorm(_ChannelNorm):
    """Group norm of x [n, C, ...]: the channels of a group together; one group is the layer norm of images."""

    def __init__(self, num_groups: int, num_features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        if num_features % num_groups:
            raise ConfigError(f"{num_features} channels do not divide into {num_groups} groups")
        super().__init__((num_features,), eps, affine)
        self.num_groups = num_groups
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        self.check(x, min_dim=2)
        return self.affine_channels(F.group_norm(x, self.num_groups, eps=self.eps))

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_features}, eps={self.eps}"


def make_norm(kind: NormKind, num_features: int, groups: int) -> nn.Module:
    """The norm named `kind` for [n, num_features, ...]; `layer` is over all but the first dimension."""
    if kind == "batch":
        return BatchNorm(num_features)
    if kind == "instance":
        return InstanceNorm(num_features)
    if kind == "none":
        return nn.Identity()
    return GroupNorm(1 if kind == "layer" else groups, num_features)


def name_norms(module: nn.Module) -> None:
    """Tell each norm its name in `module`; the first one where a layer is used under several."""
    for name, norm in module.named_modules():
        if isinstance(norm, Norm):
            norm.qualified_name = name


def _normalise(x: Tensor, reference: Tensor, dims: list[int], eps: float) -> Tensor:
    var, mean = torch.var_mean(_wide(reference), dims, correction=0, keepdim=True)
    return ((x - mean) * torch.rsqrt(var + eps)).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    """x in float32 where its own precision is too low for a variance, as the fused kernels do."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _beyond_second_order() -> bool:
    """Whether three or more derivatives are being taken; the fused kernels are wrong from there on.

    A compiler does not see how many there are, and fuses the primitives itself.
    """
    return torch.compiler.is_compiling() or order() > 2


def convert(module: nn.Module) -> nn.Module:
    """A deep copy of `module` with every nn.BatchNorm*, SyncBatchNorm, InstanceNorm*, LayerNorm and GroupNorm exact.

    Names, values, dtypes, ties and hooks of parameters and buffers stay, and so do training flags. A batch or
    instance norm that is in eval mode with running statistics keeps using these, whatever mode it is put in later.
    Subclasses are left as they are, since their forward may differ.

    Raises `ConfigError` for a lazy module that has no shape yet, and for a subclass of batch norm with running
    statistics, which would write them inside the inner loop.
    """
    for name, child in module.named_modules():
        _refuse(name, child)
    root = copy.deepcopy(module)
    exact = {id(child): _EXACT[type(child)](child) for child in list(root.modules()) if type(child) in _EXACT}
    for parent in list(root.modules()):
        for name, child in parent._modules.items():
            if id(child) in exact:
                parent._modules[name] = exact[id(child)]
    result = exact.get(id(root), root)
    name_norms(result)
    return result


def _refuse(name: str, module: nn.Module) -> None:
    label = f"{name or 'the model'} ({type(module).__name__})"
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        raise ConfigError(f"{label} has no shape yet: run the model once on an example before handing it over")
    if isinstance(module, _BatchNorm) and type(module) not in _EXACT and module.running_mean is not None:
        raise ConfigError(
            f"{label} is a subclass of batch norm that writes running statistics in its forward, which an inner loop "
            "must not do: use nn.BatchNorm itself, or give it track_running_stats=False"
        )


def _batch_norm(old: nn.Module) -> Norm:
    assert isinstance(old, _BatchNorm)
    new = _adopt(BatchNorm(old.num_features, eps=old.eps), old)
    new.frozen = not old.training and old.running_mean is not None
    return new


def _instance_norm(old: nn.Module) -> Norm:
    assert isinstance(old, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d)
    new = _adopt(InstanceNorm(old.num_features, eps=old.eps), old)
    new.frozen = not old.training and old.running_mean is not None
    return new


def _layer_norm(old: nn.Module) -> Norm:
    assert isinstance(old, nn.LayerNorm)
    return _adopt(LayerNorm(old.normalized_shape, eps=old.eps), old)


def _group_norm(old: nn.Module) -> Norm:
    assert isinstance(old, nn.GroupNorm)
    return _adopt(GroupNorm(old.num_groups, old.num_channels, eps=old.eps), old)


def _adopt(new: N, old: nn.Module) -> N:
    """`new` with all that any nn.Module has taken from `old`: parameters, buffers, hooks and the training flag."""
    for attribute in vars(nn.Module()):
        new.__dict__[attribute] = old.__dict__[attribute]
    return new


_EXACT: dict[type[nn.Module], Callable[[nn.Module], Norm]] = {
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    nn.InstanceNorm1d: _instance_norm,
    nn.InstanceNorm2d: _instance_norm,
    nn.InstanceNorm3d: _instance_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
}
