"""The service on real Ray Serve: a replica is killed under load, the command is ended and started again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import Client, png

pytestmark = pytest.mark.slow
REQUESTS, CLIENTS = 1_000, 8


class Command:
    """`raymeta serve` as a process of its own."""

    def __init__(self, model: Path, store: Path, *options: str) -> None:
        command = [sys.executable, "-m", "raymeta.serve", str(model), "--port", "0", "--store", str(store), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r":(\d+)/", line)
        assert found is not None, line + self.process.communicate()[1]
        self.client = Client(int(found[1]))

    def descendants(self) -> dict[int, str]:
        """Command lines of all processes below, by their ids."""
        parents, lines = {}, {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                lines[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
        below = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in below} - below:
            below |= more
        return {pid: lines[pid] for pid in below - {self.process.pid}}

    def end(self, number: int) -> int:
        """Its exit code; nothing that it started is left."""
        below = set(self.descendants())
        self.process.send_signal(number)
        self.process.communicate(timeout=120)
        end = time.monotonic() + 30
        while left := {pid for pid in below if Path(f"/proc/{pid}/exe").exists()}:
            assert time.monotonic() < end, left
            time.sleep(0.1)
        return self.process.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lost_replica_costs_no_answer_and_classifiers_survive(number: int, exported: Path, tmp_path: Path) -> None:
    service = Command(exported, tmp_path / "store", "--replicas", "2")
    try:
        name = service.client.create()
        queries = [("file", f"{place}.png", png(shape, place)) for shape in ("ring", "line") for place in range(4)]
        right = [service.client.predict(name, [query])[2] for query in queries]
        asked = Counter[int]()
        killed = threading.Event()

        def ask(turn: int) -> bool:
            if turn == REQUESTS // 2:
                replicas = [pid for pid, line in service.descendants().items() if "ServeReplica" in line]
                assert len(replicas) == 2
                os.kill(replicas[0], signal.SIGKILL)
                killed.set()
            status, headers, content = service.client.predict(name, [queries[turn % len(queries)]])
            asked[status] += 1
            if status == 503:
                return headers["Retry-After"] is not None and list(content) == ["error"]
            return status == 200 and close(content, right[turn % len(queries)])

        with ThreadPoolExecutor(CLIENTS) as pool:
            fine = list(pool.map(ask, range(REQUESTS)))
        assert killed.is_set()
        assert all(fine), asked
        assert asked[200] > REQUESTS * 0.9
        shown = service.client.ask("GET", "/api/classifiers")[2]
        assert service.end(number) == 130
        service = Command(exported, tmp_path / "store")
        assert service.client.ask("GET", "/api/classifiers")[2] == shown
        assert close(service.client.predict(name, [queries[0]])[2], right[0])
    finally:
        service.end(signal.SIGTERM)


def close(content: dict[str, list[dict[str, object]]], right: dict[str, list[dict[str, object]]]) -> bool:
    (ours,), (theirs,) = content["answers"], right["answers"]
    same = {**ours, "alternatives": 0, "probability": 0} == {**theirs, "alternatives": 0, "probability": 0}
    return same and ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)
