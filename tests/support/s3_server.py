"""A real S3 server for tests: moto, in a process and an environment of its own, on a free port of 127.0.0.1."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest

OWN = Path(__file__).parents[2] / ".venv" / "s3-server" / "bin" / "python"
BUCKET = "meta-learning"
# As long and as odd as real ones, and found nowhere else.
KEY, SECRET = "AKIARAYMETATESTKEY00", "wJalr/XUtnFEMI+K7MDENGbPxRfiCYraymetaKEY"


def python_with_moto() -> str:
    """An interpreter that can run the server; skips the test where there is none."""
    given = os.environ.get("RAYMETA_TEST_S3_SERVER")
    if given or OWN.exists():
        return given or str(OWN)
    if importlib.util.find_spec("moto") is None:
        pytest.skip(f"no S3 server: make {OWN.parents[1]}, or name a Python with moto in RAYMETA_TEST_S3_SERVER")
    return sys.executable


class S3Server:
    """Start, stop, start again at the same address; a stopped server has forgotten everything."""

    def __init__(self, log: Path, **environment: str) -> None:
        self.log = log
        self._python, self._environment = python_with_moto(), environment
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self._python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **self._environment}, cwd=self.log.parent
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                assert self._process.poll() is None, self.log.read_text()
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def make_bucket(self) -> None:
        from pyarrow.fs import FileSystem

        FileSystem.from_uri(self.uri("", bucket="any") + "&allow_bucket_creation=true")[0].create_dir(BUCKET)

    def uri(self, path: str, *, bucket: str = BUCKET, credentials: str = f"{KEY}:{quote(SECRET, safe='')}@") -> str:
        endpoint = quote(f"http://127.0.0.1:{self.port}", safe="")
        return f"s3://{credentials}{bucket}/{path}?endpoint_override={endpoint}&region=us-east-1"

    def requests(self, method: str) -> list[str]:
        """Paths of the requests so far, oldest first."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line.split(f"{method} ")[1].split(" HTTP")[0] for line in lines if f"{method} /" in line]
