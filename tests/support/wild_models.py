"""Networks as people bring them: one entry for each layer or habit, with what becomes of it. Everything is float64.

`python tests/support/wild_models.py` writes the table of docs/models.md from this list.
"""

from __future__ import annotations

import copy
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from raymeta import MAML, Episode, Examples, RaymetaError, meta_gradient

WAY, PER_CLASS, TASKS = 3, 2, 3
INNER_LR = 0.2
DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"

VECTOR, SEQUENCE, IMAGE, VOLUME, TOKENS = (6,), (5, 4), (2, 6, 6), (1, 4, 4, 4), ("tokens", 5)


class Wild(NamedTuple):
    """A network, its inputs, and the outcome: `exact`, or `refused` before anything is computed, for each path."""

    name: str
    make: Callable[[], nn.Module]
    input: tuple[Any, ...] = VECTOR
    vmap: str = "exact"
    loop: str = "exact"
    reference: str = "differences"
    """`differences` of values, `autograd` where torch holds something constant on purpose, or `none` for what is random
    or coarse"""
    dtype: torch.dtype = torch.float64


def episodes(kind: tuple[Any, ...], num_tasks: int = TASKS, seed: int = 0) -> list[Episode]:
    generator = torch.Generator().manual_seed(seed)

    def side() -> Examples:
        n = WAY * PER_CLASS
        if kind[0] == "tokens":
            x = torch.randint(0, 9, (n, kind[1]), generator=generator)
        else:
            x = torch.randn(n, *kind, generator=generator, dtype=torch.float64)
        return Examples(x, torch.arange(WAY).repeat_interleave(PER_CLASS))

    return [Episode(side(), side()) for _ in range(num_tasks)]


# ---- layers in a small network -------------------------------------------------------------------------------------


class Body(nn.Module):
    """A layer, flattened, and a head, both of sizes that are found by a run on zeros."""

    def __init__(self, layer: nn.Module, kind: tuple[Any, ...], after: Callable[[Any], Tensor] = lambda z: z) -> None:
        super().__init__()
        self.layer, self.after = layer, after
        with torch.no_grad(), torch.random.fork_rng():
            zeros = torch.zeros(4, kind[1], dtype=torch.long) if kind[0] == "tokens" else torch.randn(4, *kind)
            width = after(copy.deepcopy(layer)(zeros)).flatten(1).shape[1]
        self.head = nn.Linear(width, WAY)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.after(self.layer(x)).flatten(1)))


def within(layer: Callable[[], nn.Module], kind: tuple[Any, ...] = VECTOR, **options: Any) -> Callable[[], nn.Module]:
    return lambda: Body(layer(), kind, **options)


def in_eval(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made = layer()
        for norm in made.modules():
            if getattr(norm, "running_mean", None) is not None:
                norm.running_mean.copy_(torch.linspace(-0.5, 0.5, len(norm.running_mean)))
                norm.running_var.copy_(torch.linspace(0.5, 2.0, len(norm.running_var)))
        return made.eval()

    return make


class Lambda(nn.Module):
    """Parameters `w` and a function of (w, x)."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int, dtype: torch.dtype | None = None):
        super().__init__()
        self.w, self.function = nn.Parameter(0.5 * torch.randn(*shape, dtype=dtype)), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.w, x)


class MovingAverage(nn.Module):
    """Normalises by a buffer that forward moves: assigned, or written in place."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.register_buffer("mean", torch.zeros(6))
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        else:
            self.mean = (0.9 * self.mean + 0.1 * x.mean(0)).detach()
        return self.linear(x - self.mean)


class Counter(nn.Module):
    """Counts its calls in a plain attribute and in a list, and computes with the count."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen = 0, []
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        return self.linear(x) / (1 + len(self.seen))


class Keeper(nn.Module):
    """Keeps its features on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.linear(x)
        return self.last


class ChangesInput(nn.Module):
    """Shifts its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x += 0.3
        return self.linear(x)


class ClampsItself(nn.Module):
    """Cuts its own weights in every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.linear.weight.data.clamp_(-0.1, 0.1)
        return self.linear(x)


class Drawn(nn.Module):
    """Masks drawn in forward by a generator that is not torch's."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * (1.0 if self.draw() < 0.5 else 2.0)


class Prefetch(nn.Module):
    """Masks drawn by a generator of its own."""

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator, self.linear = generator, nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.generator, torch.Generator):
            return self.linear(x) * torch.rand(4, generator=self.generator)
        return self.linear(x) * self.generator.random()


class KeepsItself(nn.Module):
    """A function that keeps the module, and so the one that was handed over and not its copy."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(6, 4), nn.Parameter(torch.ones(4))
        self.act = lambda z: torch.tanh(z) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(x))


def replaced_forward() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, WAY))
    original = net.forward
    net.forward = lambda x: 2 * original(x)  # type: ignore[method-assign]
    return net


class Schedules(nn.Module):
    """Changes something that lies outside of its own buffers and attributes in every forward."""

    def __init__(self, change: Callable[[Schedules], object]) -> None:
        super().__init__()
        self.linear, self.change = nn.Linear(6, 4), change
        self.seen, self.softplus = {"calls": [0]}, nn.Softplus()
        self.teacher = nn.Linear(6, 4).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        self.change(self)
        return self.softplus(self.linear(x)) * len(self.seen["calls"]) + self.teacher(x)


def appends(model: Schedules) -> None:
    model.seen["calls"].append(1)


def sharpens(model: Schedules) -> None:
    model.softplus.beta = model.softplus.beta + 0.5


def follows(model: Schedules) -> None:
    with torch.no_grad():
        model.teacher.weight.mul_(0.9).add_(model.linear.weight.detach(), alpha=0.1)


class HooksTensors(nn.Module):
    """Reverses a gradient by a hook on a result."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        if z.requires_grad:
            z.register_hook(lambda gradient: -2 * gradient)
        return z


class Energy(nn.Module):
    """Uses the gradient of a function of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(torch.tanh(self.linear(y)).square().sum(), y, create_graph=True)
        return self.linear(x) + 0.1 * slope[:, :4]


class PutsIntoEval(nn.Module):
    """Puts its norm into eval mode in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.eval()
        return self.norm(self.linear(x))


class FusedWeightNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.ones(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch._weight_norm(self.v, self.g, 0))


class Checkpointed(nn.Module):
    """Computes its activations again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.linear, self.reentrant = nn.Linear(6, 4), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(self.linear, x, use_reentrant=self.reentrant)


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class Aliased(nn.Module):
    """A weight that is a buffer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.register_buffer("alias", self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) @ self.alias


class Listed(nn.Module):
    """A layer in a plain list, which nn.Module does not see, or which it sees under another name."""

    def __init__(self, layer: nn.Module, registered: bool) -> None:
        super().__init__()
        self.layers = [layer]
        self.linear = nn.Linear(6, 6)
        if registered:
            self.norm = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](self.linear(x))


class Straight(torch.autograd.Function):
    """The sign with the derivative of the identity, in torch's older form."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class Cubed(torch.autograd.Function):
    """x³, in the form that torch.func understands."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        context.save_for_backward(*inputs)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return 3 * x**2 * gradient


class Functional(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.linear = function, nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


class Returns(nn.Module):
    """Wraps its outputs."""

    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.linear, self.wrap = nn.Linear(6, WAY), wrap

    def forward(self, x: Tensor) -> object:
        return self.wrap(self.linear(x))


class Merged(nn.Module):
    """Batch norm over the rows of all places of a sequence."""

    def __init__(self, viewed: bool) -> None:
        super().__init__()
        self.viewed = viewed
        self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.linear(x).flatten(0, 1))
        return z.view(len(x), -1) if self.viewed else z.reshape(len(x), -1)


class Scale(nn.Module):
    """A parametrization of a person's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / (1 + weight.square().sum())


def parametrized(register: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return within(lambda: register(nn.Linear(6, 6)))


def frozen_trunk() -> nn.Module:
    trunk = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.9))
    trunk.requires_grad_(False).eval()
    return nn.Sequential(trunk, nn.Linear(6, WAY))


def left_in_eval() -> nn.Module:
    return in_eval(lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, WAY)))()


def hooked() -> nn.Module:
    net = Body(nn.Linear(6, 4), VECTOR)
    net.layer.register_forward_hook(lambda module, inputs, output: output * 2)
    return net


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(4), nn.Linear(4, WAY))


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, WAY))


def embedded(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return within(layer, TOKENS)


def last(z: Any) -> Tensor:
    """The last output of a recurrent layer."""
    return z[0][:, -1]


def half() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, WAY)).to(torch.bfloat16)


def spectral(linear: nn.Module) -> nn.Module:
    return parametrizations.spectral_norm(linear)


def shift(w: Tensor, x: Tensor) -> Tensor:
    z = x * w
    z[:, 0] = x[:, 1] * w[1]
    return z


def convolved(layer: Callable[[], nn.Module], kind: tuple[Any, ...]) -> Callable[[], nn.Module]:
    return within(layer, kind)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(6, 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x)


class Cells(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        assert state is not None
        return state[0]


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*self.linear(x).chunk(3, -1))


def _registered(module: nn.Module) -> nn.Module:
    return nn.utils.parametrize.register_parametrization(module, "weight", Scale())


def _spectrum(w: Tensor, x: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x) * w, n=6)


def _solved(w: Tensor, x: Tensor) -> Tensor:
    return torch.cholesky_solve(x.T, torch.linalg.cholesky(w @ w.T + torch.eye(6))).T


def _scattered(w: Tensor, x: Tensor) -> Tensor:
    places = torch.tensor([2, 0, 1, 2, 0, 1]).expand(len(x), 6)
    return x.new_zeros(len(x), 3).scatter_add(1, places, (x * w).index_select(1, torch.tensor([5, 4, 3, 2, 1, 0])))


def _while_large(w: Tensor, x: Tensor) -> Tensor:
    z = x * w
    while float(z.detach().abs().max()) > 1:
        z = z / 2
    return z


LINE = (2, 8)
MODELS = [
    Wild("Linear", within(lambda: nn.Linear(6, 4))),
    Wild("Bilinear", within(Twice)),
    Wild("Conv1d", convolved(lambda: nn.Conv1d(2, 3, 3), LINE), LINE),
    Wild("Conv2d", convolved(lambda: nn.Conv2d(2, 3, 3), IMAGE), IMAGE),
    Wild("Conv2d, strided and padded", convolved(lambda: nn.Conv2d(2, 3, 3, 2, 1), IMAGE), IMAGE),
    Wild(
        "Conv2d, circular padding",
        convolved(lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), IMAGE),
        IMAGE,
    ),
    Wild("Conv2d, dilated", convolved(lambda: nn.Conv2d(2, 3, 2, dilation=2), IMAGE), IMAGE),
    Wild("Conv2d, depthwise", convolved(lambda: nn.Conv2d(2, 4, 3, groups=2), IMAGE), IMAGE),
    Wild("Conv3d", convolved(lambda: nn.Conv3d(1, 2, 2), VOLUME), VOLUME),
    Wild("ConvTranspose1d", convolved(lambda: nn.ConvTranspose1d(2, 3, 2), LINE), LINE),
    Wild("ConvTranspose2d", convolved(lambda: nn.ConvTranspose2d(2, 3, 2), IMAGE), IMAGE),
    Wild("MaxPool2d", convolved(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2)), IMAGE), IMAGE),
    Wild("AvgPool2d", convolved(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2)), IMAGE), IMAGE),
    Wild(
        "AdaptiveAvgPool2d", convolved(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(2)), IMAGE), IMAGE
    ),
    Wild(
        "Upsample, bilinear",
        convolved(lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.Upsample(scale_factor=2, mode="bilinear")), IMAGE),
        IMAGE,
    ),
    Wild("PixelShuffle", convolved(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.PixelShuffle(2)), IMAGE), IMAGE),
    Wild("BatchNorm1d", within(lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))),
    Wild("BatchNorm2d", convolved(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), IMAGE), IMAGE),
    Wild("BatchNorm3d", convolved(lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2)), VOLUME), VOLUME),
    Wild(
        "BatchNorm without statistics",
        within(lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False))),
    ),
    Wild("BatchNorm without gain", within(lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False)))),
    Wild("BatchNorm in eval mode", left_in_eval),
    Wild("BatchNorm over merged rows", within(lambda: Merged(False), SEQUENCE), SEQUENCE),
    Wild("BatchNorm over merged rows, viewed", within(lambda: Merged(True), SEQUENCE), SEQUENCE, vmap="refused"),
    Wild(
        "BatchNorm in a plain list",
        lambda: Body(Listed(nn.BatchNorm1d(6), False), VECTOR),
        vmap="refused",
        loop="refused",
    ),
    Wild("BatchNorm in a list and registered", lambda: Body(Listed(nn.BatchNorm1d(6), True), VECTOR)),
    Wild(
        "InstanceNorm2d",
        convolved(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True)), IMAGE),
        IMAGE,
    ),
    Wild(
        "InstanceNorm with statistics",
        convolved(lambda: nn.InstanceNorm2d(2, track_running_stats=True), IMAGE),
        IMAGE,
        "refused",
        "refused",
    ),
    Wild(
        "InstanceNorm with statistics, in eval mode",
        in_eval(
            convolved(
                lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True, track_running_stats=True)),
                IMAGE,
            )
        ),
        IMAGE,
    ),
    Wild("LayerNorm", within(lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4)))),
    Wild("GroupNorm", convolved(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), IMAGE), IMAGE),
    Wild("RMSNorm", within(lambda: nn.Sequential(nn.Linear(6, 4), nn.RMSNorm(4)))),
    Wild(
        "LocalResponseNorm", convolved(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LocalResponseNorm(2)), IMAGE), IMAGE
    ),
    Wild("weight_norm", parametrized(parametrizations.weight_norm)),
    Wild("weight_norm over everything", parametrized(lambda m: parametrizations.weight_norm(m, dim=None))),
    Wild(
        "weight_norm of a convolution",
        convolved(lambda: parametrizations.weight_norm(nn.Conv2d(2, 3, 3)), IMAGE),
        IMAGE,
    ),
    Wild("weight_norm, counted from the end", parametrized(lambda m: parametrizations.weight_norm(m, dim=-2))),
    Wild("weight_norm, the older function", old_weight_norm),
    Wild("spectral_norm", parametrized(spectral), vmap="refused", reference="autograd"),
    Wild("orthogonal", parametrized(parametrizations.orthogonal)),
    Wild("a parametrization of one's own", parametrized(_registered)),
    Wild(
        "ReLU, GELU, SiLU, Softplus",
        lambda: Body(
            nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.GELU(), nn.SiLU(), nn.Softplus()), VECTOR
        ),
    ),
    Wild("PReLU", within(lambda: nn.Sequential(nn.Linear(6, 4), nn.PReLU(4)))),
    Wild("ReLU in place", within(lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True)))),
    Wild("ReLU in place on the input", within(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 4)))),
    Wild("in-place change of the input", within(ChangesInput)),
    Wild("in-place change of values within", within(lambda: Lambda(shift, 6))),
    Wild(
        "Softmax and LogSoftmax",
        lambda: nn.Sequential(nn.Linear(6, 5), nn.Softmax(1), nn.Linear(5, WAY), nn.LogSoftmax(1)),
    ),
    Wild("Dropout", within(lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5))), reference="none"),
    Wild("Dropout in eval mode", frozen_trunk),
    Wild("Embedding", embedded(lambda: nn.Embedding(9, 3)), TOKENS),
    Wild("Embedding with padding", embedded(lambda: nn.Embedding(9, 3, padding_idx=0)), TOKENS, reference="autograd"),
    Wild("Embedding with max_norm", embedded(lambda: nn.Embedding(9, 3, max_norm=1.0)), TOKENS, "refused", "refused"),
    Wild(
        "Embedding with sparse gradients",
        embedded(lambda: nn.Embedding(9, 3, sparse=True)),
        TOKENS,
        "refused",
        "refused",
    ),
    Wild("EmbeddingBag", embedded(lambda: nn.EmbeddingBag(9, 3)), TOKENS, "refused", "refused"),
    Wild("RNN", within(lambda: nn.RNN(4, 3, batch_first=True), SEQUENCE, after=last), SEQUENCE, "refused"),
    Wild("GRU", within(lambda: nn.GRU(4, 3, batch_first=True), SEQUENCE, after=last), SEQUENCE, "refused"),
    Wild("LSTM", within(lambda: nn.LSTM(4, 3, batch_first=True), SEQUENCE, after=last), SEQUENCE, "refused"),
    Wild("LSTMCell", lambda: Body(Cells(nn.LSTMCell(4, 3)), SEQUENCE), SEQUENCE, vmap="refused"),
    Wild("MultiheadAttention", within(SelfAttention, SEQUENCE), SEQUENCE),
    Wild("scaled_dot_product_attention", within(Fused, SEQUENCE), SEQUENCE),
    Wild(
        "TransformerEncoderLayer",
        within(lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True), SEQUENCE),
        SEQUENCE,
    ),
    Wild("one weight under two names", within(Tied)),
    Wild("a weight that is a buffer, too", within(Aliased)),
    Wild(
        "a frozen layer",
        lambda: Body(nn.Sequential(nn.Linear(6, 4).requires_grad_(False), nn.Tanh(), nn.Linear(4, 4)), VECTOR),
    ),
    Wild("a forward hook", hooked),
    Wild("a lazy layer without a shape", lazy, vmap="refused", loop="refused"),
    Wild("a buffer that forward assigns", within(lambda: MovingAverage(False))),
    Wild("a buffer that forward writes in place", within(lambda: MovingAverage(True)), vmap="refused"),
    Wild("a counter and a list on the module", within(Counter)),
    Wild("a result kept on the module", within(Keeper)),
    Wild("weights cut in forward", within(ClampsItself), vmap="refused", loop="refused"),
    Wild("Python's random in forward", within(lambda: Drawn(lambda: random.random())), reference="none"),
    Wild("numpy's random in forward", within(lambda: Drawn(lambda: np.random.rand())), reference="none"),
    Wild(
        "a numpy generator kept on the module",
        within(lambda: Prefetch(np.random.default_rng(0))),
        vmap="refused",
        loop="refused",
    ),
    Wild(
        "a torch generator kept on the module",
        within(lambda: Prefetch(torch.Generator())),
        vmap="refused",
        loop="refused",
    ),
    Wild("a function that keeps the model", within(KeepsItself), vmap="refused", loop="refused"),
    Wild("a forward that was replaced", replaced_forward, vmap="refused", loop="refused"),
    Wild("a list inside of a dictionary", within(lambda: Schedules(appends)), vmap="refused", loop="refused"),
    Wild("a setting of another layer", within(lambda: Schedules(sharpens)), vmap="refused", loop="refused"),
    Wild("a frozen copy that follows", within(lambda: Schedules(follows)), vmap="refused", loop="refused"),
    Wild("hooks on tensors", within(HooksTensors), vmap="refused", reference="autograd"),
    Wild("derivatives taken in forward", within(Energy), vmap="refused", loop="refused"),
    Wild("a norm that forward puts into eval mode", within(PutsIntoEval), vmap="refused", loop="refused"),
    Wild("torch._weight_norm", within(FusedWeightNorm), vmap="refused", loop="refused"),
    Wild("torch.utils.checkpoint", within(lambda: Checkpointed(False)), vmap="refused", loop="refused"),
    Wild("torch.utils.checkpoint, reentrant", within(lambda: Checkpointed(True)), vmap="refused", loop="refused"),
    Wild("autograd.Function, older form", within(lambda: Functional(Straight.apply)), vmap="refused", reference="none"),
    Wild("autograd.Function with setup_context", within(lambda: Functional(Cubed.apply))),
    Wild("complex parameters", within(lambda: Lambda(_spectrum, 4, dtype=torch.cdouble))),
    Wild("bfloat16", half, reference="none", dtype=torch.bfloat16),
    Wild("einsum and matmul", within(lambda: Lambda(lambda w, x: torch.einsum("ni,ij->nj", x, w) @ w.T, 6, 6))),
    Wild("sort, topk and gather", within(lambda: Lambda(lambda w, x: (x * w).sort(1).values.topk(3).values, 6))),
    Wild("Cholesky and solve", within(lambda: Lambda(_solved, 6, 6))),
    Wild("index_select and scatter", within(lambda: Lambda(_scattered, 6))),
    Wild("while over values", within(lambda: Lambda(_while_large, 6)), vmap="refused"),
    Wild("outputs in a tuple", lambda: Returns(lambda z: (z, z)), vmap="refused", loop="refused"),
    Wild("outputs in a dictionary", lambda: Returns(lambda z: {"logits": z}), vmap="refused", loop="refused"),
    Wild("outputs cut from the graph", lambda: Returns(torch.detach), vmap="refused", loop="refused"),
    Wild("DataParallel", lambda: nn.DataParallel(nn.Linear(6, WAY)), vmap="refused", loop="refused"),
    Wild("TorchScript", lambda: torch.jit.script(nn.Linear(6, WAY)), vmap="refused", loop="refused"),
]


# ---- what becomes of them ------------------------------------------------------------------------------------------


def made(wild: Wild) -> nn.Module:
    """The same network every time."""
    torch.manual_seed(0)
    return wild.make()


def learnable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def query_loss(wild: Wild, params: dict[str, Tensor], task: Episode, num_steps: int, *, recorded: bool) -> Tensor:
    """After plain gradient descent on a network of the task's own; a function of `params` where it is `recorded`."""
    net, (support, query) = made(wild), task
    theta = dict(params)
    for _ in range(num_steps):
        theta = theta if recorded else {name: value.detach().requires_grad_() for name, value in theta.items()}
        loss = F.cross_entropy(functional_call(net, theta, (support.x.clone(),)), support.y)
        gradient = torch.autograd.grad(loss, list(theta.values()), create_graph=recorded, materialize_grads=True)
        theta = {n: v - INNER_LR * g for (n, v), g in zip(theta.items(), gradient, strict=True)}
    return F.cross_entropy(functional_call(net, theta, (query.x.clone(),)), query.y)


def outer_loss(wild: Wild, params: dict[str, Tensor], num_steps: int) -> float:
    """The mean over tasks, from first derivatives of the network as it was made alone."""
    losses = [query_loss(wild, params, task, num_steps, recorded=False) for task in episodes(wild.input)]
    return float(torch.stack(losses).mean())


def by_autograd(wild: Wild, num_steps: int) -> dict[str, Tensor]:
    """The mean meta-gradient of plain autograd."""
    params = {name: value.requires_grad_() for name, value in learnable(made(wild)).items()}
    losses = [query_loss(wild, params, task, num_steps, recorded=True) for task in episodes(wild.input)]
    gradient = torch.autograd.grad(torch.stack(losses).mean(), list(params.values()), materialize_grads=True)
    return dict(zip(params, gradient, strict=True))


def gradient_of(
    wild: Wild, vectorize: str, num_steps: int = 2, tasks: list[Episode] | None = None, **options: Any
) -> dict[str, Tensor]:
    """The meta-gradient of MAML, from the same initial parameters and random numbers every time."""
    model = made(wild)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    algorithm = MAML(inner_lr=INNER_LR, inner_steps=num_steps)
    given = [in_type(wild, task) for task in (episodes(wild.input) if tasks is None else tasks)]
    return meta_gradient(model, algorithm, given, vectorize=vectorize, **options)  # type: ignore[arg-type]


def in_type(wild: Wild, task: Episode) -> Episode:
    sides = [side._replace(x=side.x.to(wild.dtype) if side.x.is_floating_point() else side.x) for side in task]
    return Episode(*sides)


def refusal(wild: Wild, vectorize: str) -> str | None:
    """The text of the refusal; None where a gradient comes."""
    try:
        gradient_of(wild, vectorize)
    except RaymetaError as error:
        return str(error)
    return None


def table() -> str:
    """The table of docs/models.md."""
    rows = ["| layer or habit | side by side (`vmap`) | one after another (`loop`) |", "|---|---|---|"]
    for wild in MODELS:
        rows.append(f"| {wild.name} | {_cell(wild, 'vmap')} | {_cell(wild, 'loop')} |")
    return "\n".join(rows) + "\n"


def _cell(wild: Wild, vectorize: str) -> str:
    text = refusal(wild, vectorize)
    if text is None:
        return "exact"
    remedy = re.split(r"(?<!lambda z): (?!loop|true|false)", text)[-1]
    return "refused: " + re.sub(r"\s+", " ", remedy).replace("|", "\\|")


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    head, _, tail = DOCUMENT.read_text().partition("<!-- table -->\n")
    DOCUMENT.write_text(f"{head}<!-- table -->\n{table()}")
