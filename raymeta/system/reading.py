"""The one way to read a file that somebody else may have made: regular files only, of bounded size and depth.

A pipe or a device may never answer, a sparse file holds more than any memory, and deeply nested or self-repeating text
ends a parser. Each is refused at once, by name.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
from pathlib import Path
from typing import IO, Any

TEXT_BYTES = 2**20
"""The most that a configuration or a sweep file may hold."""
WHOLE_BYTES = 64 * 2**20
"""The most that other files may hold which are read whole, such as `summary.json`."""
ROWS_BYTES = 512 * 2**20
"""The most that a file of rows may hold; a run of any length writes a few megabytes."""
MAX_DEPTH = 64
"""Levels of lists and mappings in a file."""
_HEADER_BYTES = 100 * 10**6  # of safetensors, the most that its own reader takes


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to read its bytes; raises `OSError` for folders, pipes, sockets and devices."""
    waiting = getattr(os, "O_NONBLOCK", 0)  # opening a pipe that nobody writes to would wait for ever
    descriptor = os.open(path, os.O_RDONLY | waiting | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int = WHOLE_BYTES) -> bytes:
    """All bytes of a regular file; raises `OSError`, also for one that holds more than `limit`."""
    with open_regular(path) as file:
        data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit / 2**20:g} MB", str(path))
    return data


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """The text of a regular file in UTF-8; raises `OSError` and `UnicodeDecodeError`."""
    return read_regular(path, limit).decode("utf-8-sig")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a regular file; raises `OSError` and `ValueError`."""
    value = parse_json(read_regular(path))
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def read_safetensors(path: Path) -> bytes:
    """The bytes of a safetensors file, read only where its own header says that it is so long.

    Raises `OSError`, and `ValueError` for a header that does not fit the file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 2 <= length <= min(_HEADER_BYTES, size - 8):
            raise ValueError("it does not begin with the header of a safetensors file")
        header = parse_json(file.read(length))
        if 8 + length + _end(header) != size:
            raise ValueError(f"its header tells of another length than its {size:,} bytes")
        file.seek(0)
        return file.read(size)


def _end(header: Any) -> int:
    """Where the last tensor ends, as the header says."""
    try:
        return max((int(part["data_offsets"][1]) for n, part in header.items() if n != "__metadata__"), default=0)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("its header is damaged") from error


def parse_json(data: str | bytes) -> Any:
    """The value in `data`; a whole number of hundreds of digits comes as a float, infinite if need be.

    Raises `ValueError`, also for lists nested so deeply that they would end the process.
    """
    try:
        value = json.loads(data, parse_int=_bounded)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _require_shallow(value)
    return value


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for part in level:
            below += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        level = [part for part in below if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested too deeply: more than {MAX_DEPTH} levels")


_LONGEST_INT = 18
"""Digits of a whole number that every program can hold; nothing that we count has more."""


def _bounded(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INT else float(digits)


def first_line(error: BaseException) -> str:
    """An error in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0]
