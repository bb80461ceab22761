"""A host within this host: its own processes, network and /tmp/ray, so that no port and no `ray stop` meets others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
ADDRESS = "10.77.0.1"
_UNSHARE = ["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
_START = """
set -e
hostname node
ip link set lo up
ip link add node type veth peer name outside
ip addr add {address}/24 dev node
ip link set node up
ip link set outside up
mkdir -p /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
{commands}
touch {home}/up
sleep infinity &
wait # as its first process this shell takes in the orphans, so that they do not stay as zombies
"""


class Host(NamedTuple):
    """A host at `ADDRESS`, entered through process `pid`; commands start in `home`, which holds cluster/."""

    home: Path
    pid: int
    environment: dict[str, str]

    def popen(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--uts", "--net", "--pid", f"--wd={self.home}"]
        return subprocess.Popen(
            [*enter, *command],
            env={**self.environment, **environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *command: str, timeout_s: float = 60, **environment: str) -> tuple[int, str]:
        """Exit code and output."""
        process = self.popen(*command, **environment)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        return process.returncode, output

    def __call__(self, *command: str, **environment: str) -> str:
        """Output of a command that has to succeed."""
        code, output = self.run(*command, **environment)
        assert code == 0, output
        return output


@contextmanager
def own_host(home: Path, *, needs: Sequence[str], environment: Mapping[str, str], commands: str = "") -> Iterator[Host]:
    """A host that has run `commands`. Skips where programs are missing or namespaces are not allowed."""
    missing = [name for name in (*needs, "unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; .ci/run says from which packages")
    if subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces of one's own are not allowed here: needs root")
    (home / "cluster").symlink_to(ROOT / "cluster")
    whole = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT), "HOME": str(home), "OMP_NUM_THREADS": "1", **environment,
    }  # fmt: skip
    script = _START.format(address=ADDRESS, home=home, commands=commands)
    with open(home / "start.log", "w") as log:
        first = subprocess.Popen([*_UNSHARE, "bash", "-c", script], env=whole, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not (home / "up").exists():
            said = (home / "start.log").read_text()
            assert first.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        inside = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()[0]
        yield Host(home, int(inside), whole)
    finally:
        first.kill()  # and with it all that runs in its namespaces
        first.wait()
