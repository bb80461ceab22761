"""Random numbers that a model draws, such as dropout's, inside of a shard: its own, whoever computes it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymeta.keys import TaskKey


class Randomness:
    """torch's generators of a device, seeded for a shard where it draws, and given back as they were after it.

    With `all_generators` Python's and numpy's too, which a model of a person's own may draw from.
    """

    def __init__(self, device: torch.device, *, all_generators: bool = False) -> None:
        self._on_gpu = device.type == "cuda"
        self._all = all_generators
        self._before: Tensor | None = None  # what the CPU's generator was
        self._others_before: tuple[Any, Any] | None = None

    def take(self, key: TaskKey) -> None:
        """Seed them by the shard's first task, once until `give_back`: what is drawn then is drawn in a row."""
        if self._before is not None:
            return
        self._before = torch.default_generator.get_state()  # `torch.random.fork_rng` takes eight times as long
        seed = key.torch_seed()
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would record a stack trace for each device
        if self._on_gpu:
            torch.cuda.manual_seed(seed)
        if self._all:
            self._others_before = random.getstate(), np.random.get_state()
            random.seed(seed)
            np.random.seed(seed % 2**32)

    def give_back(self) -> None:
        """The shard is done."""
        if self._before is not None:
            torch.default_generator.set_state(self._before)
            self._before = None
        if self._others_before is not None:
            random.setstate(self._others_before[0])
            np.random.set_state(self._others_before[1])
            self._others_before = None


def random_states(device: torch.device) -> list[Tensor]:
    """Where torch's generators that code on `device` may draw from are now."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def are_other(before: Sequence[Tensor], now: Sequence[Tensor]) -> bool:
    """Whether anything was drawn between two `random_states`."""
    return not all(torch.equal(one, other) for one, other in zip(before, now, strict=True))
