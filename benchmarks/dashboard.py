"""Speed of the dashboard with 500 runs and a run of 1,000,000 steps: `python benchmarks/dashboard.py --record`.

The runs are copies of one real run; the long one is written by the library's own writer, and once more with a row for
each fourth step, as a program that thins nothing would. Times are of the server's answers, over a socket, on loopback.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import record

import raymeta
from raymeta.runs.write import RunWriter

RUNS = 500
LONG = 1_000_000
REPEATS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/dashboard.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        numbers = measure(Path(folder))
    print(json.dumps(numbers, indent=2))
    if arguments.record:
        print(record("dashboard", numbers))
    return 0


def prepare(folder: Path) -> None:
    """500 runs, two long ones, and one that is being written."""
    options: dict[str, Any] = {"model.width": 8, "steps": 40, "validate_every": 5, "test_episodes": 600}
    run = raymeta.meta_train(output=str(folder), validation_episodes=20, **options)
    for i in range(1, RUNS):
        shutil.copytree(run.path, folder / f"{run.id}_{i:03d}", ignore=shutil.ignore_patterns("checkpoints", "tb"))
    writer = RunWriter(folder / "thinned", steps=LONG)
    for step in range(1, LONG + 1):
        writer.step(step, metrics(step))
    writer.finish("finished")
    writer.close()
    with open(folder / "thinned" / "metrics.jsonl", "rb") as file:
        example = json.loads(file.readline())
    shutil.copytree(folder / "thinned", folder / "whole")
    with open(folder / "whole" / "metrics.jsonl", "w") as file:
        file.writelines(json.dumps({**example, "step": step}) + "\n" for step in range(1, LONG + 1, 4))


def metrics(step: int) -> dict[str, float]:
    return {"train/query_loss": 1 / step, "train/support_loss": 2 / step, "train/query_accuracy": 1 - 1 / step,
            "outer/grad_norm": 1 / step, "outer/lr": 0.001, "time/step_s": 0.1, "tasks_per_s": 160.0}  # fmt: skip


def measure(folder: Path) -> dict[str, Any]:
    server = subprocess.Popen(
        [sys.executable, "-m", "raymeta.dashboard", str(folder), "--port", "0", "--ray", ""],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    port = int(server.stdout.readline().split("http://")[1].split("/")[0].rsplit(":", 1)[1])
    try:
        numbers: dict[str, Any] = {"runs": RUNS + 2, "steps": LONG}
        numbers["first_page_cold_s"] = ask(port, "/api/pages/runs")[0]
        numbers["first_page_s"] = median(port, "/api/pages/runs")
        run = next(path.name for path in folder.iterdir() if path.name.endswith("_001"))
        named = {run: "run", "thinned": "long_run_thinned_by_its_writer", "whole": "long_run_of_250000_rows"}
        for name, key in named.items():
            numbers[f"{key}_page_cold_s"], size = ask(port, f"/api/pages/run/{name}")
            numbers[f"{key}_page_s"] = median(port, f"/api/pages/run/{name}")
            numbers[f"{key}_page_bytes"] = size
        numbers["memory_mb"] = memory_mb(server.pid)
        numbers["live_update_s"] = live(port, folder)
        numbers["memory_after_tailing_100000_rows_mb"] = memory_mb(server.pid)
        return numbers
    finally:
        server.terminate()
        server.wait()


def live(port: int, folder: Path) -> float:
    """Median time of an answer after rows came; 100,000 rows are appended in all."""
    shutil.copytree(folder / "thinned", folder / "growing")
    times = []
    with open(folder / "growing" / "metrics.jsonl", "a") as file:
        for turn in range(REPEATS):
            first = LONG + 1 + turn * 5001
            rows = ({"step": s, "attempt": 1, "time": float(s), **metrics(s)} for s in range(first, first + 5000))
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            ask(port, "/api/pages/run/growing")
            last = {"step": first + 5000, "attempt": 1, "time": float(first), **metrics(first)}
            file.write(json.dumps(last) + "\n")
            file.flush()
            times.append(ask(port, "/api/pages/run/growing")[0])
    return statistics.median(times)


def median(port: int, target: str) -> float:
    return statistics.median(ask(port, target)[0] for _ in range(REPEATS))


def ask(port: int, target: str) -> tuple[float, int]:
    """Seconds until the answer was whole, and its bytes."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", target)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{target}: {answer.status} {body[:200]!r}")
    return time.perf_counter() - began, len(body)


def memory_mb(pid: int) -> float:
    """Resident memory of the server's process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
