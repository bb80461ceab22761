"""Whether the computation of a shard is compiled, where `compile: auto` leaves it to a rule."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from raymeta.engine.worker.kernels import built_together
from raymeta.system.signals import raise_if_interrupt

LEAST_TASKS = 100_000
"""Training tasks from which on compiling pays.

A layer's passes cost seconds to compile and save up to a millisecond of each task, so that layers and inner steps
cancel: what is compiled for half a minute is worth it after some ten thousand tasks (`results/benchmarks/paths.json`),
and scores are compiled as well. The rule asks for several times as many, as networks without convolutions save less.
"""
LEAST_TIME_S = 300
"""Seconds of a time limit from which on compiling pays: several times what one or two graphs take."""
MOST_INNER_STEPS = 10
"""Inner steps in training or test up to which a graph, which holds them all, is compiled; more were not measured."""
COMPILING = "the first shard is compiled: half a minute or so, or seconds where the same was compiled here before"
"""What is said before the first shard of a run."""


class Compiles(NamedTuple):
    """Whether a run is compiled, and why."""

    compile: bool
    reason: str

    def text(self) -> str:
        return f"{str(self.compile).lower()} by rule: {self.reason}"


def choose_compile(
    *,
    num_tasks: int,
    time_limit_s: float | None,
    inner_steps: int,
    measured: bool,
    recomputed: bool,
    device: Literal["cpu", "cuda"],
) -> Compiles:
    """By configuration and machine, never by the clock; a compiler is looked for last.

    `num_tasks` are all tasks of training, `inner_steps` the most in a graph. `measured` says whether method and network
    are among those that the rule was measured with, `recomputed` whether inner steps are computed again.
    """
    if device == "cuda":
        return Compiles(False, "the rule was not measured on a GPU")
    if not measured:
        return Compiles(False, "the rule was not measured with this method or network")
    if recomputed:
        return Compiles(False, "checkpoint_inner_steps is set")
    if inner_steps > MOST_INNER_STEPS:
        return Compiles(False, f"{inner_steps} inner steps, more than {MOST_INNER_STEPS}, are too large a graph")
    if num_tasks < LEAST_TASKS:
        return Compiles(False, f"{num_tasks:,} training tasks, fewer than {LEAST_TASKS:,}, do not pay for it")
    if time_limit_s is not None and time_limit_s < LEAST_TIME_S:
        return Compiles(False, f"a time limit of {time_limit_s:.0f} s, less than {LEAST_TIME_S} s, does not pay for it")
    problem = compiler_problem()
    if problem is not None:
        return Compiles(False, f"no compiler works here: {problem}")
    return Compiles(True, f"{num_tasks:,} training tasks, at least {LEAST_TASKS:,}, pay for half a minute or more")


@cache
def compiler_problem() -> str | None:
    """Why torch cannot compile for the CPU of this machine; None where it can, which is asked once and written down."""
    note = _note()
    if note.exists():
        return None
    problem = compile_a_sum()
    if problem is None:
        with suppress(OSError):  # asked again the next time
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f"torch {torch.__version__} compiled a sum for {sys.executable}\n", encoding="utf-8")
    return problem


def compile_a_sum() -> str | None:
    """What keeps torch from compiling a sum for the CPU of this machine; None where nothing does. Takes seconds."""
    try:
        with built_together():
            result = torch.compile(_doubled, fullgraph=True, dynamic=False)(torch.ones(3))
        return None if result.tolist() == [2.0] * 3 else "a compiled sum is wrong"
    except Exception as error:  # a compiler that is missing or broken raises anything
        raise_if_interrupt(error)
        return (str(error).strip() or type(error).__name__).splitlines()[0]


def _note() -> Path:
    """The file that is there where a compiler worked; another torch, Python or compiler has another one."""
    place = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    folder = Path(place) if place else Path(tempfile.gettempdir()) / f"raymeta-compiler-{os.getuid()}"
    name = os.environ.get("CXX", "g++")
    found = shutil.which(name)
    changed = os.stat(found).st_mtime_ns if found else None
    described = repr((torch.__version__, torch.__file__, sys.executable, name, found, changed))
    return folder / f"works-{hashlib.sha256(described.encode()).hexdigest()[:16]}"


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return x + x
