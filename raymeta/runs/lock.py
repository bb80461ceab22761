"""One writer a run: the system's lock keeps out a second one on this machine, the heartbeat one on another."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from raymeta.errors import EnvironmentProblem
from raymeta.runs import layout
from raymeta.runs.read import Run, is_being_written
from raymeta.runs.rows import read_rows
from raymeta.system.files import write_problem


class DirectoryLock:
    """The system's lock on a folder, until `release` or the end of this process, however that comes.

    Raises `EnvironmentProblem` where the folder cannot be made or written.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(directory / layout.LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise write_problem(directory, error) from error
        self.held = _locked(self._descriptor)
        """Whether the lock is ours; another process has it otherwise."""

    def release(self) -> None:
        """Let others have it; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RunLock:
    """The right to write a run directory, until `release` or the end of this process, however that comes.

    Raises `EnvironmentProblem` where another writer is at work, or where the directory cannot be made or written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = DirectoryLock(directory)
        try:
            if not self._lock.held:
                raise _occupied(directory, Run.open(directory).info)
            self.previous = require_no_writer(directory)
        except BaseException:
            self.release()
            raise

    def last_attempt(self) -> int:
        """Number of the attempt before, 0 for a new run; found in the rows where `run.json` does not tell."""
        attempt = self.previous.get("attempt", 0)
        if isinstance(attempt, int) and attempt > 0:
            return attempt
        rows, _ = read_rows(self._directory / layout.EVENTS)
        return max((row["attempt"] for row in rows if isinstance(row.get("attempt"), int)), default=0)

    def release(self) -> None:
        """Let others write; may be called again."""
        self._lock.release()


def require_no_writer(directory: Path) -> dict[str, Any]:
    """The `run.json` that a run's last writer left; raises `EnvironmentProblem` while that one is at work."""
    if not (directory / layout.RUN).is_file():
        return {}
    info = Run.open(directory).info
    ours = info.get("pid") == os.getpid() and info.get("host") == socket.gethostname()
    if info.get("status") == "running" and not ours and is_being_written(directory, info):
        raise _occupied(directory, info)
    return info


def _occupied(directory: Path, info: dict[str, Any]) -> EnvironmentProblem:
    live = info.get("status") == "running" and is_being_written(directory, info)
    writer = f"process {info.get('pid')} on {info.get('host')}" if live else "another process that has just begun"
    return EnvironmentProblem(
        f"{directory} is being written by {writer}: wait for it or stop it first; a run has one writer"
    )


def _locked(descriptor: int) -> bool:
    """Whether the lock is ours now. File systems without locks give it to everyone: the heartbeat has to do there."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
