"""Files that a person named for a result: regular ones, where a link leads to one, or `-`, which is standard output."""

from __future__ import annotations

import sys
from pathlib import Path

from raymeta.errors import ConfigError
from raymeta.system.files import write_whole

STDOUT = Path("-")


def require_output(path: Path, option: str) -> Path:
    """Where a result that a person wants in `path` is written, looked at before anything is computed.

    Raises `ConfigError` where the folder is missing, or what is there is no regular file: a device, a pipe, a folder.
    """
    return (
        path if path == STDOUT else require_regular(path, option, instead="name another one, or - for standard output")
    )


def require_regular(path: Path, option: str, *, instead: str = "name another one") -> Path:
    """The same for a result that standard output is nothing for."""
    if path.is_symlink():  # the file is replaced, and never the link to it
        path = path.resolve()
    if path.exists() and not path.is_file():
        raise ConfigError(f"{option} {path} is no regular file: {instead}")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: there is no folder {path.parent}: make it, or choose another {option}")
    return path


def write_output(path: Path, data: str | bytes, option: str) -> None:
    """Write a result to where `require_output` allows it. Raises `ConfigError`, `EnvironmentProblem`."""
    path = require_output(path, option)
    if path != STDOUT:
        write_whole(path, data)
        return
    sys.stdout.flush()
    sys.stdout.write(data if isinstance(data, str) else data.decode())
    sys.stdout.flush()
