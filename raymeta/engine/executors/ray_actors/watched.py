"""Whether Ray still runs on this machine: its C++ ends a process that asks it for anything once its raylet has died."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from typing import Any

from raymeta.errors import EnvironmentProblem


class Watched:
    """Ray's own processes on this machine, watched by the system's handles so that a look costs a microsecond.

    These are the raylet that this process is connected to, and the control service (GCS) where this process started it.
    Where the system has no such handles, nothing is watched, and nothing raises.
    """

    def __init__(self, ray: Any) -> None:
        self._handles: dict[int, str] = {}
        if not hasattr(os, "pidfd_open"):
            return
        self._poll = poll = select.poll()
        for name, pid in processes(ray):
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(pid)
                self._handles[handle] = f"{name} (process {pid})"
                poll.register(handle, select.POLLIN)

    def gone(self) -> str:
        """One that has died; empty while all are there."""
        dead = self._poll.poll(0) if self._handles else ()
        return self._handles[dead[0][0]] if dead else ""

    def require_alive(self) -> None:
        """Raise `EnvironmentProblem` once one has died."""
        if gone := self.gone():
            raise EnvironmentProblem(
                f"Ray has ended on this machine: its {gone} is gone, killed by somebody or by the system when memory "
                "ran short. The run cannot go on without it: continue with --resume"
            )

    def close(self) -> None:
        for handle in self._handles:
            os.close(handle)
        self._handles = {}


def processes(ray: Any) -> list[tuple[str, int]]:
    node = getattr(ray._private.worker, "_global_node", None)
    found: list[tuple[str, int]] = []
    if path := getattr(node, "raylet_socket_name", None):
        with contextlib.suppress(OSError):
            found.append(("raylet", _listener(path)))
    started = getattr(node, "all_processes", {})
    return found + [("control service", info.process.pid) for info in started.get("gcs_server", [])]


def _listener(path: str) -> int:
    """The process that listens at a socket of this machine."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(5)
        asking.connect(path)
        found: bytes = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", found)[0]
    return pid
