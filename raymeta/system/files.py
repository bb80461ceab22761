"""Whole files that are either the old version or the new one, whatever kills the writer, and JSON for them.

JSON has no NaN and no infinity: `json_text` writes null in their place, and `nan_for_null` reads it back as NaN. What
reads files is in `reading`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raymeta.errors import EnvironmentProblem
from raymeta.system.redact import redactor, without_secrets

_REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere (--output)",
    errno.EDQUOT: "your quota is used up: free some space, or write elsewhere (--output)",
    errno.EACCES: "choose a folder you may write to (--output)",
    errno.EPERM: "choose a folder you may write to (--output)",
    errno.EROFS: "the file system is read-only: choose another (--output)",
    errno.ENOENT: "the folder is gone: was the run deleted or the disk unmounted?",
}


def write_whole(path: Path, data: str | bytes) -> None:
    """Replace `path` by `data` (text as UTF-8): readers see the old bytes or the new ones, never a mixture.

    Text is written without credentials, see `redact`. The bytes are on the disk when this returns. Raises
    `EnvironmentProblem` when they cannot be written (disk full, no permission); `path` then still has its old content.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")
    try:
        _write_and_sync(beside, without_secrets(data).encode() if isinstance(data, str) else data)
        os.replace(beside, path)
        sync_directory(path.parent)
    except OSError as error:
        raise write_problem(path, error) from error
    finally:
        # Gone already after a successful replace. A disk that broke meanwhile must not hide the error above.
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _write_and_sync(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make renames and new names in `directory` survive a power cut, where the file system can."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such call
            raise
    finally:
        os.close(descriptor)


def require_writable(folder: Path) -> None:
    """Make `folder` and try it out; raises `EnvironmentProblem` where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_problem(folder, error) from error
    trial = folder / "trial"
    write_whole(trial, "")
    trial.unlink()


def write_problem(path: Path, error: OSError) -> EnvironmentProblem:
    """The error to raise when `path` could not be written: what, where, and what to do."""
    cause = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and the permissions, or write elsewhere (--output)")
    return EnvironmentProblem(f"cannot write {path}: {cause}; {remedy}")


def write_json(path: Path, value: object) -> None:
    """`write_whole` of indented JSON."""
    write_whole(path, json_text(value, indent=2) + "\n")


def json_text(value: object, *, indent: int | None = None) -> str:
    """Valid JSON of `value`: numbers of numpy and torch as numbers, paths and other objects as text, no credentials."""
    return json.dumps(_plain(value, redactor()), indent=indent, allow_nan=False)


def _plain(value: object, clean: Callable[[str], str]) -> object:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): _plain(item, clean) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, clean) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return _plain(value.tolist(), clean)
    return clean(str(value))


def nan_for_null(value: Any) -> Any:
    """What `json_text` wrote of numbers: null in their place is NaN, at any depth."""
    if value is None:
        return math.nan
    if isinstance(value, dict):
        return {key: nan_for_null(item) for key, item in value.items()}
    return [nan_for_null(item) for item in value] if isinstance(value, list) else value
