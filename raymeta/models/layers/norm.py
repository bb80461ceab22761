"""Normalisation layers with right derivatives, and the statistics that batch norm uses.

torch's fused batch, instance and layer norm return silently wrong second derivatives for `grad(vmap(...))` where gain
and shift differ between tasks, and wrong third derivatives in any order. The layers here give the kernel no gain or
shift and apply them outside, which is exact; only batch norm outside any transform of torch.func, where the whole
kernel is exact at second order, keeps it. From the third derivative on they compute from primitives, where the
derivatives are taken by `raymeta.autodiff.derivatives` or torch.func (`create_graph=True` twice is not seen).

No layer ever writes a buffer. Which statistics a `BatchNorm` uses is decided around the call:

- by default, as in torch, those of the batch it is given in training mode, and its running ones in eval mode;
- where `by_policy` is set, as `Problem` does, those of the batch in either mode (policy `transductive`);
- inside `reference_rows(n)` those of the first n rows, for all rows (policy `support`);
- inside `running_statistics()`, or where the converted layer was in eval mode, its running ones (policy `running`).

`collect_statistics()` hands out what was used, so that a caller can return it from inside vmap and grad.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta.autodiff.derivatives import forward_mode, order, plain
from raymeta.autodiff.graphs import is_traced
from raymeta.errors import ConfigError
from raymeta.models.layers.batch_statistics import (
    COLLECTED,
    REFERENCE_ROWS,
    USE_RUNNING,
    collect_statistics,
    reference_rows,
    running_statistics,
)

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Norm",
    "NormKind",
    "collect_statistics",
    "drop_running_statistics",
    "make_norm",
    "name_norms",
    "reference_rows",
    "running_statistics",
]

NormKind = Literal["batch", "group", "layer", "instance", "none"]
RUNNING_MOMENTUM = 0.1
"""Weight of a step's batch statistics in the running ones where a layer does not say, as in `torch.nn.BatchNorm2d`."""


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

    by_policy: bool = False
    """whether the statistics are decided around the call and not by the training flag"""

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        running: bool = True,
        momentum: float | None = RUNNING_MOMENTUM,
    ) -> None:
        """`momentum` is the weight of a step's statistics in the running ones; None for the mean over all steps."""
        super().__init__((num_features,), eps, affine)
        self.num_features = num_features
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_features) if running else None)
        self.register_buffer("running_var", torch.ones(num_features) if running else None)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x, min_dim=2)
        if self.running_mean is not None and self._uses_running():
            self._record(self.running_mean, self.running_var)
            return self.affine_channels(self.normalise_by_running(x))
        return self._normalise_by_batch(x)

    def _uses_running(self) -> bool:
        return self.frozen or USE_RUNNING.get() or not (self.training or self.by_policy)

    def _num_reference_rows(self, x: Tensor) -> int | None:
        """Of x [n, C, ...], whose rows may be the parts of each example of the batch, one example after another."""
        reference = REFERENCE_ROWS.get()
        if reference is None:
            return None
        of = reference.of or x.shape[0]
        parts, rest = x.shape[0] // of, x.shape[0] % of  # divmod knows no symbolic sizes, which exporters have
        if rest or not parts:
            raise ConfigError(
                f"{self.describe()} was given {x.shape[0]} rows for a batch of {reference.of} examples, so nobody "
                "knows which are of the support set: use --batch_norm transductive"
            )
        if x.shape[0] < reference.rows:
            raise ConfigError(
                f"{self.describe()} was given {x.shape[0]} rows, fewer than the {reference.rows} reference rows"
            )
        return reference.rows * parts

    def _normalise_by_batch(self, x: Tensor) -> Tensor:
        rows = self._num_reference_rows(x)
        reference = x if rows is None else x[:rows]
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
    """Group norm of x [n, C, ...]: the channels of a group together; one group is the layer norm of images.

    torch's own kernel gives other last bits where its derivative is recorded; the layer norm of each group does not.
    """

    def __init__(self, num_groups: int, num_features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        if num_features % num_groups:
            raise ConfigError(f"{num_features} channels do not divide into {num_groups} groups")
        super().__init__((num_features,), eps, affine)
        self.num_groups = num_groups
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        self.check(x, min_dim=2)
        grouped = x.reshape(x.shape[0], self.num_groups, -1)
        if _beyond_second_order():
            z = _normalise(grouped, grouped, [2], self.eps)
        else:
            z = F.layer_norm(grouped, grouped.shape[2:], eps=self.eps)
        return self.affine_channels(z.view(x.shape))

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_features}, eps={self.eps}"


def make_norm(kind: NormKind, num_features: int, groups: int, *, affine: bool = True) -> nn.Module:
    """The norm named `kind` for [n, num_features, ...]; `layer` is over all but the first dimension."""
    if kind == "batch":
        return BatchNorm(num_features, affine=affine)
    if kind == "instance":
        return InstanceNorm(num_features, affine=affine)
    if kind == "none":
        return nn.Identity()
    return GroupNorm(1 if kind == "layer" else groups, num_features, affine=affine)


def drop_running_statistics(module: nn.Module) -> None:
    """Let every batch norm use its batch in both modes, where nobody moves its running statistics."""
    for norm in module.modules():
        if isinstance(norm, BatchNorm) and not norm.frozen:
            norm.running_mean = norm.running_var = None


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
    """Whether three or more derivatives are being taken, or one of them forwards: the fused kernels are wrong then.

    A compiler gets the primitives too, which it fuses itself.
    """
    return is_traced() or order() > 2 or forward_mode()
