"""Whether the computation of a shard is compiled, where `compile: auto` leaves it to a rule."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from raymeta.engine.worker.compiled import SWITCHED_OFF, compiled
from raymeta.system.signals import raise_if_interrupt

LEAST_TASKS = 100_000
"""Training tasks from which on compiling pays.

A layer's passes cost seconds to compile and save up to a millisecond of each task, so that layers and inner steps
cancel: what is compiled for half a minute (`results/benchmarks/compile-times.json`) is worth it after some ten thousand
tasks (`paths.json`), and scores are compiled as well. The rule asks for several times as many, as networks without
convolutions save less.
"""
LEAST_TIME_S = 300
"""Seconds of a limit from which on compiling pays: several times what the graphs of a run take."""
MOST_INNER_STEPS = 10
"""Inner steps in training or test up to which a graph, which holds them all, is compiled; more were not measured."""
COMPILING = (
    "the first shard of each kind is compiled: up to a minute, or seconds where the same was compiled here before"
)
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
    limits_s: Mapping[str, float | None],
    inner_steps: int,
    measured: bool,
    recomputed: bool,
    device: Literal["cpu", "cuda"] | None,
    say: Callable[[str], None] = lambda text: None,
) -> Compiles:
    """By configuration and machine, never by the clock; a compiler is looked for last, and `say` hears where that takes
    long.

    `num_tasks` are all tasks of training, `limits_s` the seconds that a person allows by option, `inner_steps` the most
    in a graph. `measured` says whether what is computed is what the rule was measured with, `recomputed` whether inner
    steps are computed again. A `device` of None is not known before workers are there.
    """
    if device is None:
        return Compiles(False, "which device the workers have is not known yet, as it would be with --device cpu")
    if device == "cuda":
        return Compiles(False, "the rule was not measured on a GPU")
    if not measured:
        return Compiles(False, "the rule was not measured with this method, network, loss, precision or kind of tasks")
    if recomputed:
        return Compiles(False, "checkpoint_inner_steps is set")
    if inner_steps > MOST_INNER_STEPS:
        return Compiles(False, f"{inner_steps} inner steps, more than {MOST_INNER_STEPS}, are too large a graph")
    if num_tasks < LEAST_TASKS:
        return Compiles(False, f"{num_tasks:,} training tasks, fewer than {LEAST_TASKS:,}, do not pay for it")
    for name, limit_s in limits_s.items():
        if limit_s is not None and limit_s < LEAST_TIME_S:
            return Compiles(False, f"{name} is {limit_s:g} s, less than {LEAST_TIME_S} s, which is short for it")
    problem = compiler_problem(say)
    if problem is not None:
        return Compiles(False, f"no compiler works here: {problem}")
    return Compiles(True, f"{num_tasks:,} training tasks, at least {LEAST_TASKS:,}, pay for half a minute or more")


def compiler_problem(say: Callable[[str], None] = lambda text: None) -> str | None:
    """Why torch cannot compile for the CPU of this machine; None where it can, which is asked once and written down.

    `say` hears where it has to be asked, which takes seconds.
    """
    if os.environ.get("TORCH_COMPILE_DISABLE") == "1":
        return SWITCHED_OFF
    name, note = _compiler(), _note()
    if shutil.which(name) is None:
        return f"{name} is not installed"  # known without waiting for torch's compiler
    if note is not None and os.path.exists(note):
        return None
    say("trying torch's compiler, which takes some seconds once on a machine")
    return _tried(note)


@cache
def _tried(note: Path | None) -> str | None:
    problem = compile_a_sum()
    if problem is None and note is not None:
        with suppress(OSError):  # asked again by the next process
            note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            note.write_text(f"torch {torch.__version__} compiled a sum for {sys.executable}\n", encoding="utf-8")
    return problem


def compile_a_sum() -> str | None:
    """What keeps torch from compiling a sum for the CPU of this machine; None where nothing does. Takes seconds."""
    addend = float(time.time_ns() % 10**9)  # a sum that no cache holds
    ones = torch.ones(3, dtype=torch.float64, device="cpu")
    try:
        result = compiled(lambda x: x + addend, [ones], ones).result
        return None if result.tolist() == [1 + addend] * 3 else "a compiled sum is wrong"
    except Exception as error:  # a compiler that is missing or broken raises anything
        raise_if_interrupt(error)
        return (str(error).strip() or type(error).__name__).splitlines()[0]


def _compiler() -> str:
    """What torch's compiler calls on Linux."""
    return os.environ.get("CXX", "g++")


def _note() -> Path | None:
    """The file that is there where a compiler worked; another torch, Python or compiler has another one."""
    place = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    found = shutil.which(_compiler())
    try:
        folder = Path(place) if place else Path(tempfile.gettempdir()) / f"raymeta-compiler-{getpass.getuser()}"
        changed = os.stat(found or _compiler()).st_mtime_ns
    except (OSError, KeyError):  # no folder for temporary files; a user without a name; a compiler that went
        return None
    described = repr((torch.__version__, torch.__file__, sys.executable, found, changed))
    return folder / f"works-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
