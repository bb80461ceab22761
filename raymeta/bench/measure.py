"""Measuring one case: equal gradients first, then all paths in turn, many times over."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from raymeta.autodiff.failures import exact_attention
from raymeta.bench.case import Case
from raymeta.bench.cases import CASES
from raymeta.bench.floor import floor, flops, has_floor, peak_flops, synchronize
from raymeta.bench.ours import PATHS, ours
from raymeta.bench.peers import available
from raymeta.system.kept_memory import kept_memory
from raymeta.system.signals import raise_if_interrupt
from raymeta.tree import Params

LEAST_S = 0.4
"""Seconds of one measurement at least, so that a clock's tick does not show."""
TOLERANCE = 1e-2
"""Largest relative distance of two gradients that count as equal."""
AT_KINKS = 0.1
"""Units at a kink move a float32 gradient by 0.004 to 0.02: one between the two is compared again in float64."""

Maker = Callable[[Case], Callable[[], Params]]


def measure(
    case: Case, device: torch.device, *, rounds: int, paths: list[str] | None = None, memory: bool = True
) -> dict[str, Any]:
    """Tasks a second of every path, with ratios round by round, and with `memory` the peak of each.

    Memory is kept as in a worker, for everyone.
    """
    with kept_memory():
        return _measured(case, device, rounds=rounds, paths=paths, memory=memory)


def _measured(
    case: Case, device: torch.device, *, rounds: int, paths: list[str] | None, memory: bool
) -> dict[str, Any]:
    runs, problems, first_s = prepare(case, device, paths)
    if has_floor(case):
        floors = {at_once: floor(case, device, at_once=at_once) for at_once in (True, False)}
        runs["floor"] = floors[_seconds(floors[True], 2, device) <= _seconds(floors[False], 2, device)]
    calls = {name: _calls(run, device) for name, run in runs.items()}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            rates[name].append(case.num_tasks / _seconds(runs[name], calls[name], device))
    return {
        "case": case.name,
        "tasks": case.num_tasks,
        "left_out": problems,
        "rows": [
            _row(name, rates, first_s)
            | ({"peak_memory_mb": _peak_memory(case, name, device)} if memory and name != "floor" else {})
            for name in runs
        ],
        "flops_per_task": flops(case) / case.num_tasks if has_floor(case) else None,
        "peak_flops": peak_flops(device),
    }


def prepare(
    case: Case, device: torch.device, paths: list[str] | None
) -> tuple[dict[str, Callable[[], object]], dict[str, str], dict[str, float]]:
    """All paths whose gradient is right, what was wrong with the others, and the seconds of each one's first call."""
    makers: dict[str, Maker] = {f"raymeta {path}": partial(ours, path=path, device=device) for path in PATHS}
    for name, peer in available(case).items():
        makers[name] = lambda case, peer=peer: peer(case, device)  # type: ignore[misc]
    runs: dict[str, Callable[[], object]] = {}
    problems: dict[str, str] = {}
    first_s: dict[str, float] = {}
    with exact_attention():
        expected = ours(case, path="loop", device=device)()
        for name, make in makers.items():
            if paths and name not in paths:
                continue
            try:
                run = make(case)
                began = time.perf_counter()
                got = run()
                first_s[name] = time.perf_counter() - began
                distance = _distance(got, expected)
                if TOLERANCE < distance < AT_KINKS:
                    double = replace(case, dtype=torch.float64)
                    distance = _distance(make(double)(), ours(double, path="loop", device=device)())
            except Exception as error:
                raise_if_interrupt(error)
                problems[name] = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
                continue
            if not distance <= TOLERANCE:
                problems[name] = f"another gradient: relative distance {distance:.2g}"
            else:
                runs[name] = run
    return runs, problems, first_s


def _distance(got: Params, expected: Params) -> float:
    flat = [torch.cat([part[name].cpu().double().reshape(-1) for name in sorted(expected)]) for part in (got, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def _calls(run: Callable[[], object], device: torch.device) -> int:
    """Calls of one measurement."""
    run()
    seconds = _seconds(run, 1, device)
    return max(1, round(LEAST_S / seconds))


def _seconds(run: Callable[[], object], calls: int, device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize(device)
    return (time.perf_counter() - began) / calls


def _row(name: str, rates: dict[str, list[float]], first_s: dict[str, float]) -> dict[str, Any]:
    own = rates[name]
    peers = {other: values for other, values in rates.items() if not other.startswith(("raymeta", "floor"))}
    row: dict[str, Any] = {"path": name, "tasks_per_s": _spread(own), "first_call_s": first_s.get(name)}
    if "floor" in rates:
        row["of_the_floor"] = _spread([a / b for a, b in zip(own, rates["floor"], strict=True)])
    if name.startswith("raymeta") and peers:
        best = max(peers, key=lambda other: statistics.median(peers[other]))
        row["best_peer"] = best
        row["over_best_peer"] = _spread([a / b for a, b in zip(own, peers[best], strict=True)])
    return row


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def _peak_memory(case: Case, name: str, device: torch.device) -> float | None:
    """Memory that computing the gradient took at most, in a process of its own (compiling included)."""
    code = f"from raymeta.bench.measure import report_memory; report_memory({case.name!r}, {name!r}, {device.type!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return float(json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 and done.stdout else None


def report_memory(case_name: str, name: str, device_type: str) -> None:
    """Print the megabytes that a path needs beyond those of its process with the data."""
    torch.set_num_threads(1)
    case, device = CASES[case_name], torch.device(device_type)
    peers = {other: peer for other, peer in available(case).items() if other == name}
    path = name.removeprefix("raymeta ")
    with kept_memory():
        run = peers[name](case, device) if peers else ours(case, path, device)
        before = torch.cuda.memory_allocated() if device.type == "cuda" else resident_peak()
        for _ in range(2):
            run()
    after = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident_peak()
    print(json.dumps((after - before) / 1e6))


def resident_peak() -> float:
    """Most bytes of memory that this process has had."""
    # Linux counts the parent's memory in ru_maxrss of a process that it started; VmHWM is of this program alone.
    status = Path("/proc/self/status")
    if status.exists():
        return 1024.0 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
