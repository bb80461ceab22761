"""What a forward depends on besides its arguments: random generators, and what the model wrote into itself.

Whoever computes something a second time puts back first what was there the first time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from raymeta.autodiff.own_state import OwnState

Moment = tuple[Callable[[], None], ...]
"""Everything as it was: to be called to put it back."""


class Surroundings(NamedTuple):
    """Of one model: its own state, and whether its forward draws from Python's or numpy's generators."""

    own_states: Sequence[OwnState] = ()
    draws: bool = False

    def changed(self) -> list[str]:
        """Names of what the model wrote into itself."""
        return [name for own in self.own_states for name in own.changed()]

    def now(self, values: Mapping[str, Tensor]) -> Moment:
        """The moment of now: generators of the CPU, and of the GPU where `values` lie on one."""
        moment: list[Callable[[], None]] = [_then(torch.set_rng_state, torch.get_rng_state())]
        if any(value.is_cuda for value in values.values()):
            moment.append(_then(torch.cuda.set_rng_state, torch.cuda.get_rng_state()))
        if self.draws:
            moment += [_then(random.setstate, random.getstate()), _then(np.random.set_state, np.random.get_state())]
        return *moment, *(own.now().restore for own in self.own_states)


def put_back(moment: Moment) -> None:
    for part in moment:
        part()


@contextmanager
def seeded_by(seed: int) -> Iterator[None]:
    """Inside, torch's generator of the CPU, Python's and numpy's start from `seed`; afterwards they are as before."""
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _then(function: Callable[[Any], object], state: Any) -> Callable[[], None]:
    return lambda: (function(state), None)[1]
