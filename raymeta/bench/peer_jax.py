"""MAML in JAX, as a user would write it: a jitted gradient of a vmapped or mapped task."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from raymeta.bench.case import Case
from raymeta.bench.plain import plain
from raymeta.tasks.inputs import only
from raymeta.tree import Params


def jax_vmap(case: Case, device: torch.device) -> Callable[[], Params]:
    """jit(grad(sum of vmap(task)))."""
    return _gradient(case, device, "vmap")


def jax_map(case: Case, device: torch.device) -> Callable[[], Params]:
    """jit of the sum over lax.map of grad(task)."""
    return _gradient(case, device, "map")


def _gradient(case: Case, device: torch.device, how: str) -> Callable[[], Params]:
    if device.type == "cpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    import jax
    import jax.numpy as jnp

    in_double = case.dtype == torch.float64
    net = plain(case.module())
    with jax.enable_x64(in_double):
        params = {name: jnp.asarray(p.detach().numpy()) for name, p in net.named_parameters()}
        data = [jnp.asarray(v.numpy()) for side in case.episodes() for v in (only(side.x), side.y)]
    forward = _forward(net)
    lr, steps, first_order = float(getattr(case.algorithm, "inner_lr", 0.0)), case.inner_steps, case.first_order

    def loss(p: Any, x: Any, y: Any) -> Any:
        outputs = forward(p, x)
        if case.goal == "regression":
            return jnp.mean((outputs - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], axis=1))

    def task(p: Any, sx: Any, sy: Any, qx: Any, qy: Any) -> Any:
        for _ in range(steps):
            grads = jax.grad(loss)(p, sx, sy)
            if first_order:
                grads = jax.lax.stop_gradient(grads)
            p = jax.tree.map(lambda value, g: value - lr * g, p, grads)
        return loss(p, qx, qy)

    if how == "vmap":
        whole = jax.jit(jax.grad(lambda p, *d: jax.vmap(task, (None, 0, 0, 0, 0))(p, *d).sum()))
    else:
        one = jax.grad(task)
        whole = jax.jit(lambda p, *d: jax.tree.map(lambda g: g.sum(0), jax.lax.map(lambda t: one(p, *t), tuple(d))))

    ready: Any = jax.block_until_ready

    def gradient() -> Params:
        with jax.enable_x64(in_double):
            result = ready(whole(params, *data))
        return {name: torch.from_numpy(np.array(value)) for name, value in result.items()}

    return gradient


def _forward(net: nn.Module) -> Callable[[Any, Any], Any]:
    """The network's layers in JAX."""
    import jax
    import jax.numpy as jnp

    def forward(p: Any, x: Any) -> Any:
        for name, layer in net.named_children():
            match layer:
                case nn.Conv2d():
                    pads = [(int(pad), int(pad)) for pad in layer.padding]
                    strides = [int(s) for s in layer.stride]
                    x = jax.lax.conv_general_dilated(x, p[f"{name}.weight"], strides, pads)
                    x = x + p[f"{name}.bias"][:, None, None] if layer.bias is not None else x
                case nn.BatchNorm2d():
                    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
                    x = (x - mean) * jax.lax.rsqrt(var + layer.eps)
                    x = x * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]
                case nn.ReLU():
                    x = jax.nn.relu(x)
                case nn.MaxPool2d():
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
                case nn.AdaptiveAvgPool2d():
                    x = x.mean((2, 3), keepdims=True)
                case nn.Identity():
                    pass
                case nn.Flatten():
                    x = x.reshape(len(x), -1)
                case nn.Linear():
                    x = x @ p[f"{name}.weight"].T + p[f"{name}.bias"]
                case _:
                    raise NotImplementedError(f"bench has no JAX form of {type(layer).__name__}")
        return x

    return forward
