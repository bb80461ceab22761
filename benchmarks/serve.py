"""Time of answers of `raymeta serve` under load: `python benchmarks/serve.py MODEL [--clients 8] [--requests 1000]`.

Writes results/benchmarks/serve.json: p50 and p99 in milliseconds of one query each, by clients that ask one after the
other, with how many were refused for the moment (503).
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from typing import Any

from record import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serve"))

from serving import Client, png


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "raymeta.serve", given.model, "--port", "0", "--store", store]
        service = subprocess.Popen([*command, "--replicas", str(given.replicas)], stdout=subprocess.PIPE, text=True)
        try:
            assert service.stdout is not None
            found = re.search(r":(\d+)/", service.stdout.readline())
            assert found is not None
            measured = measure(Client(int(found[1])), given.clients, given.requests)
        finally:
            service.terminate()
            service.wait()
    sizes = {"clients": given.clients, "requests": given.requests, "replicas": given.replicas}
    print(record("serve", {**sizes, **measured}), json.dumps(measured))


def measure(client: Client, clients: int, requests: int) -> dict[str, Any]:
    name = client.create()
    query = [("file", "a.png", png("ring", 1))]
    for _ in range(20):
        client.predict(name, query)

    def ask(_: int) -> tuple[int, float]:
        start = time.perf_counter()
        try:
            status = client.predict(name, query)[0]
        except (OSError, http.client.HTTPException):
            status = 0
        return status, time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(ask, range(requests)))
    wall = time.perf_counter() - start
    times = quantiles([1000 * seconds for status, seconds in answers if status == 200], n=100)
    refused, failed = sum(s == 503 for s, _ in answers), sum(s not in (200, 503) for s, _ in answers)
    return {"p50_ms": times[49], "p99_ms": times[98], "per_s": requests / wall, "refused": refused, "failed": failed}


if __name__ == "__main__":
    main()
