"""What decides the last bits of a result besides the data: threads, kernels and the precision of products."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16"]

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Settings of a process that computes shards, the same wherever a shard is computed.

    `precision`: `float32` computes products in IEEE single precision; `tf32` lets a GPU round their factors to 10 bits;
    `bfloat16` runs the network under autocast, its parameters and sums staying in float32. `deterministic` takes only
    kernels with a fixed order of summation, slower on a GPU (an operation without one raises), without effect on a CPU.
    """

    threads: int = 1
    deterministic: bool = False
    precision: Precision = "float32"

    def apply(self) -> Callable[[], None]:
        """Set them in this process; the function returned sets back what was there before."""
        before = _current()
        if self.deterministic:
            os.environ.setdefault(_WORKSPACE, ":4096:8")  # cuBLAS reads it when CUDA starts
        factors = "tf32" if self.precision == "tf32" else "ieee"
        _set((self.threads, self.deterministic, self.deterministic, False, factors, factors, factors))
        return lambda: _set(before)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context a network is called in."""
        if self.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


_State = tuple[int, bool, bool, bool, str, str, str]


def _current() -> _State:
    backends = torch.backends
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        backends.cudnn.deterministic,
        backends.cudnn.benchmark,
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        backends.cudnn.rnn.fp32_precision,  # type: ignore[attr-defined]
    )


def _set(state: _State) -> None:
    threads, algorithms, deterministic, benchmark, products, convolutions, recurrent = state
    # A float32 sum changes with the number of threads, so it is pinned wherever shards are computed.
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(algorithms)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.matmul.fp32_precision = products
    # The older flag is kept in step: torch's compiler and exporter read it, and raise where it says another thing.
    torch.backends.cudnn.allow_tf32 = convolutions == "tf32"
    torch.backends.cudnn.conv.fp32_precision = convolutions  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = recurrent  # type: ignore[attr-defined]
