"""All that is to be known of a device in one command: gradients, tests, speed, and training by the clock.

    python benchmarks/gpu.py                                # at most nine minutes on a GPU
    python benchmarks/gpu.py --root FOLDER                  # trains on omniglot/ there, and not on drawn glyphs
    python benchmarks/gpu.py --device cpu --seconds 120     # the same steps, to see that they run

It needs torch and this repository, no Ray and no data. In turn:

1. gradients on the device, in float64 and float32, against float64 on the CPU;
2. the tests that are marked gpu;
3. bench of six cases beside every peer that is installed;
4. what the rules for a device rest on: tasks side by side and one after another, compiled, by CUDA graphs, and how many
   at once;
5. for the rest of the time, MAML on 5-way 1-shot tasks: accuracy by seconds.

results/benchmarks/gpu-NAME.json is written after each measurement, so a run that is cut keeps what it had. A step that
fails says why in its place and costs no other. Fails where one did.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import record

import raymeta
from raymeta.bench.case import Case
from raymeta.bench.cases import CASES
from raymeta.bench.floor import synchronize
from raymeta.bench.measure import measure
from raymeta.bench.ours import PATHS, ours
from raymeta.system.signals import raise_if_interrupt
from raymeta.tree import Params

BENCHED = ("sinusoid-maml", "omniglot-maml", "omniglot-anil", "omniglot-reptile", "omniglot-protonet", "pooled-maml")
RULED = ("sinusoid-maml", "omniglot-maml", "pooled-maml")
"""Cases that the rules are measured on: tiny, small and large networks."""
AT_ONCE = (4, 16, 64, 256, 1024)
"""Tasks side by side."""
UNTIL = {"gradients": 0.1, "tests": 0.2, "bench": 0.45, "rules": 0.65, "training": 1.0}
"""Share of the time after which a step begins nothing new."""
LEFT_FOR_TEST = 0.1
"""Share of the time that the final test takes at most."""


class Report:
    """What was measured so far, with the time that is left."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds, self._began = device, seconds, time.perf_counter()
        named = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.name = "gpu-" + "-".join(named.lower().split())
        self.content: dict[str, Any] = {"device": named, "asked_s": seconds, "failed": {}}

    def spent(self) -> float:
        return time.perf_counter() - self._began

    def is_over(self, step: str) -> bool:
        return self.spent() > UNTIL[step] * self.seconds

    def note(self, step: str, found: Any) -> None:
        self.content |= {step: found, "spent_s": self.spent()}
        record(self.name, self.content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=540, help="for everything together [540]")
    parser.add_argument("--root", type=Path, help="folder with omniglot/ to train on; drawn glyphs without it")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("error: torch sees no GPU here: --device cpu runs the same steps without one", file=sys.stderr)
        return 3
    report = Report(torch.device(arguments.device), arguments.seconds)
    steps: dict[str, Callable[[Report], Iterator[Any]]] = {
        "gradients": gradients,
        "tests": tests,
        "bench": bench,
        "rules": rules,
        "training": lambda report: training(report, arguments.root),
    }
    for name, step in steps.items():
        try:
            for found in step(report):
                report.note(name, found)
        except Exception as error:  # of a device that nobody has tried: the other steps go on
            raise_if_interrupt(error)
            report.content["failed"][name] = f"{type(error).__name__}: {str(error)[:500]}"
            report.note(name, report.content.get(name))
        print(f"{name}: {report.content['failed'].get(name) or 'done'}, {report.spent():.0f} s", flush=True)
    print(f"results/benchmarks/{report.name}.json")
    return 1 if report.content["failed"] else 0


def gradients(report: Report) -> Iterator[dict[str, Any]]:
    """Relative distance of each case's meta-gradient from that of the CPU in float64."""
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        if report.is_over("gradients"):
            return
        case = replace(case, num_tasks=2)
        exact = ours(replace(case, dtype=torch.float64), "loop", torch.device("cpu"))()
        for path in ("vmap", "loop"):
            for dtype in (torch.float64, torch.float32):
                got = ours(replace(case, dtype=dtype), path, report.device)()
                found[f"{name}, {path}, {str(dtype).removeprefix('torch.')}"] = distance(got, exact)
        yield found


def distance(got: Params, expected: Params) -> float:
    flat = [torch.cat([part[name].cpu().double().flatten() for name in sorted(expected)]) for part in (got, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def tests(report: Report) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "tests/laws/test_gpu.py"]
    limit = max(1.0, UNTIL["tests"] * report.seconds - report.spent())
    try:
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        yield {"told": f"not done after {limit:.0f} s"}
        return
    yield {"exit_code": done.returncode, "told": done.stdout.strip().splitlines()[-1:]}


def bench(report: Report) -> Iterator[list[Any]]:
    """Without compiled paths, which take minutes to begin."""
    found: list[Any] = []
    compiled = {f"raymeta {path}" for path in PATHS if path.endswith("compiled")}
    for name in BENCHED:
        if report.is_over("bench"):
            return
        wanted = [path for path in paths_of(CASES[name]) if path not in compiled]
        found.append(measure(CASES[name], report.device, rounds=3, paths=wanted, memory=False))
        yield found


def paths_of(case: Case) -> list[str]:
    from raymeta.bench.peers import available

    return [*(f"raymeta {path}" for path in PATHS), *available(case)]


def rules(report: Report) -> Iterator[dict[str, Any]]:
    """Tasks a second of a shard, by the number of its tasks and the path."""
    found: dict[str, Any] = {name: {} for name in RULED}
    for name, path, num_tasks in to_be_ruled():
        if report.is_over("rules"):
            return
        rate = rate_of(replace(CASES[name], num_tasks=num_tasks), path, report.device)
        found[name][f"{path}, {num_tasks} tasks"] = rate
        yield found


def to_be_ruled() -> Iterator[tuple[str, str, int]]:
    """Case, path and number of tasks; compiled paths come last, for they take longest to begin."""
    some = AT_ONCE[2]
    for name in RULED:
        yield from ((name, path, number) for path in ("vmap", "vmap, graph") for number in AT_ONCE)
        yield from ((name, "loop", number) for number in AT_ONCE if number <= some)  # more do not help a loop
    yield from ((name, "vmap, compiled", some) for name in RULED)


def rate_of(case: Case, path: str, device: torch.device) -> dict[str, Any]:
    """Tasks a second and the seconds of the first call, or why there are none."""
    try:
        began = time.perf_counter()
        run = ours(case, path.removesuffix(", graph"), device)
        run()
        synchronize(device)
        first_s = time.perf_counter() - began
        if path.endswith("graph"):
            run = graph_of(run, device)
        return {"tasks_per_s": case.num_tasks / seconds_of(run, device), "first_s": first_s}
    except Exception as error:
        raise_if_interrupt(error)
        return {"failed": f"{type(error).__name__}: {str(error)[:200]}"}


def seconds_of(run: Callable[[], object], device: torch.device, least_s: float = 0.3) -> float:
    """Of one call, over as many as fill `least_s`."""
    calls, spent = 0, 0.0
    while spent < least_s:
        began = time.perf_counter()
        run()
        synchronize(device)
        spent += time.perf_counter() - began
        calls += 1
    return spent / calls


def graph_of(run: Callable[[], Params], device: torch.device) -> Callable[[], object]:
    """`run` recorded once, and replayed without Python. Raises where it cannot be recorded."""
    if device.type != "cuda":
        raise RuntimeError("there are graphs on CUDA devices only")
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        run()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def training(report: Report, root: Path | None) -> Iterator[dict[str, Any]]:
    """Accuracy on validation tasks by seconds, and on test tasks at the end."""
    left = report.seconds - report.spent() - LEFT_FOR_TEST * report.seconds
    options: dict[str, Any] = {"preset": "glyphs-5w1s-maml" if root is None else "omniglot-5w1s-maml"}
    options |= {} if root is None else {"tasks.root": str(root / "omniglot")}
    options |= {"device": report.device.type, "workers": 0, "steps": 1_000_000, "time_limit": f"{max(left, 5):.0f}s"}
    options |= {"validate_every": 250, "validation_episodes": 100, "test_episodes": 600}
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = raymeta.meta_train(output=place, **options)
        events = run.events()
        began = next(event["time"] for event in events if event["kind"] == "started")
        told = [event for event in events if event["kind"] == "validation"]
        curve = [{"seconds": e["time"] - began, "step": e["step"], "accuracy": e["value"]} for e in told]
        yield {"options": options | {"tasks.root": None}, "validation": curve, "summary": run.summary}


if __name__ == "__main__":
    sys.exit(main())
