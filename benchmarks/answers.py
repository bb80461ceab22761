"""How long a person waits for an answer: a typo, `--dry-run`, the first line of a run, a list of 2,000 runs.

    python benchmarks/answers.py --record

Each in a process of its own, `--rounds` times in turn, and once before that is not counted: then files are in the page
cache, modules are compiled to bytecode and glyphs are drawn. `import torch` alone is measured beside them. Medians
count; the load of the machine stands beside them. Writes results/benchmarks/answers.json.
Fails where an answer takes longer than promised.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from record import record

from raymeta.runs.write import Headline, RunWriter, new_run_directory

NUM_RUNS = 2000
PROMISED_S = {"typo": 0.5, "dry_run": 3.0, "first_line": 4.0, "list": 1.0}
# as people have it: Python keeps the bytecode of what it has imported
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
RAYMETA = [sys.executable, "-m", "raymeta"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="times that each is measured [7]")
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/answers.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder) / "many")
        seconds = measure(Path(folder), arguments.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    late = [name for name, limit in PROMISED_S.items() if medians[name] > limit]
    load = {"load_average": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    content = {"promised_s": PROMISED_S, "median_s": medians, "seconds": seconds, "runs": NUM_RUNS, **load}
    print(json.dumps(content, indent=2))
    if arguments.record:
        print(record("answers", content))
    if late:
        print(f"error: later than promised: {', '.join(late)}", file=sys.stderr)
    return 1 if late else 0


def make_runs(folder: Path) -> None:
    """Finished runs as `raymeta train` leaves them, without checkpoints."""
    config = subprocess.run([*RAYMETA, "train", "--print-config"], capture_output=True, text=True, check=True).stdout
    for _ in range(NUM_RUNS):
        writer = RunWriter(new_run_directory(folder, "glyphs", datetime.now()), steps=450)
        writer.write_config(config)
        writer.step(450, {"train/query_loss": 1.0})
        headline = Headline("accuracy", 0.8, 0.01, 600, "test", "higher")
        writer.write_summary(headline, params_sha256="0", tasks_per_s=60.0, wall_s=120.0)
        writer.finish("finished", "steps")
        writer.close()


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round by what was asked."""
    asked: dict[str, Callable[[], float]] = {
        "import_torch": lambda: to_the_end(["-c", "import torch"], program=[sys.executable]),
        "typo": lambda: to_the_end(["train", "--algorithm.iner_lr", "1"], code=2),
        "dry_run": lambda: to_the_end(["train", "--dry-run"]),
        "first_line": lambda: to_the_first_line(["train", "--output", str(folder / "results")]),
        "list": lambda: to_the_end(["runs", "ls", str(folder / "many")]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(rounds + 1):
        for name, ask in asked.items():
            spent = ask()
            if number:
                seconds[name].append(spent)
    return seconds


def to_the_end(arguments: list[str], *, program: list[str] = RAYMETA, code: int = 0) -> float:
    began = time.perf_counter()
    done = subprocess.run([*program, *arguments], capture_output=True, check=False, env=ENVIRONMENT)
    spent = time.perf_counter() - began
    assert done.returncode == code, done.stderr.decode()
    return spent


def to_the_first_line(arguments: list[str]) -> float:
    """Until the run has its folder: the line with its name, which comes after torch, data and model."""
    began = time.perf_counter()
    with subprocess.Popen(
        [*RAYMETA, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    ) as run:
        assert run.stderr is not None
        next(line for line in run.stderr if " steps" in line)
        spent = time.perf_counter() - began
        run.kill()
    return spent


if __name__ == "__main__":
    sys.exit(main())
