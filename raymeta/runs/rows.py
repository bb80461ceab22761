"""Rows of a run: files of one JSON object a line, written and read, and which steps have a row in a long run.

Only complete lines count: a killed writer leaves a torn last line.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from raymeta.errors import DataError
from raymeta.system.files import json_text, write_problem
from raymeta.system.reading import ROWS_BYTES, first_line, open_regular, parse_json
from raymeta.trackers.scores import is_of_validation

DENSE_STEPS = 2_000
"""Up to this step every step has a row."""
PLAIN_ROWS = 4_000
"""Rows of a run of any length; validations come on top, so that a run stays under 5,000 rows with up to 999 of them."""
_MIN_ROWS = 100  # of an attempt, when earlier attempts have used up the room


def row_stride(first: int, steps: int, written: int = 0) -> int:
    """Every how many steps beyond `DENSE_STEPS` have a row, in an attempt over `first..steps`.

    `written` rows are there already, from earlier attempts; what room they leave is spread evenly.
    """
    start = max(first, DENSE_STEPS)
    room = PLAIN_ROWS - written - max(0, min(DENSE_STEPS, steps) - first)
    return max(1, math.ceil((steps - start) / max(room, _MIN_ROWS)))


def keeps_row(step: int, *, stride: int, steps: int) -> bool:
    """Whether `step` has a row: all early ones, then every `stride`-th, and the last."""
    return step <= DENSE_STEPS or step % stride == 0 or step == steps


class JsonLines:
    """An append-only file of one JSON object a line, each handed to the system at once.

    A torn last line, left by a killed writer or a full disk, is closed first, so that it harms no other line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._torn = False

    def append(self, row: Mapping[str, object]) -> None:
        """Write one row. Raises `EnvironmentProblem` if it cannot be written whole."""
        line = json_text(row).encode() + b"\n"
        try:
            if self._file is None:
                self._torn = _is_torn(self.path)
                self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  closed in `close`
            data = memoryview(b"\n" + line if self._torn else line)
            self._torn = True
            while data:
                data = data[self._file.write(data) :]
            self._torn = False
        except OSError as error:
            raise write_problem(self.path, error) from error

    def close(self) -> None:
        """Put all rows on the disk."""
        file, self._file = self._file, None
        if file is None:
            return
        with file:
            try:
                os.fsync(file.fileno())
            except OSError as error:
                raise write_problem(self.path, error) from error


def _is_torn(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except FileNotFoundError:
        return False


def count_rows(path: Path) -> int:
    """Complete lines of a file; none if there is no file."""
    if not path.is_file():
        return 0
    with open_regular(path) as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(2**20), b""))


def read_rows(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Complete rows of a `.jsonl` file from byte `offset`, and the offset from which to go on next time.

    Lines that are torn (no end yet, or cut short by a kill and closed by the next attempt) are left out. A file that
    does not exist has no rows. What was NaN or infinite is None here, see `files.nan_for_null`.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size - offset > ROWS_BYTES:
                raise OSError(errno.EFBIG, f"it is larger than {ROWS_BYTES / 2**20:g} MB")
            file.seek(offset)
            data = file.read(ROWS_BYTES)
    except FileNotFoundError:
        return [], offset
    except OSError as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error
    end = data.rfind(b"\n") + 1
    rows = (complete_row(line) for line in data[:end].split(b"\n"))
    return [row for row in rows if row is not None], offset + end


def complete_row(line: bytes) -> dict[str, Any] | None:
    """The row that a line holds; None for a torn one."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def current_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the run as it went on: an attempt's rows count up to where a newer attempt began.

    Rows of one step (the step itself, its validation) are merged. The result is ordered by step.
    """
    rows = [row for row in rows if isinstance(row.get("step"), int)]
    first: dict[int, int] = {}
    for row in rows:
        attempt = _attempt(row)
        began_at = row["step"] + _is_validation(row)  # one that an attempt makes up for belongs to the step before it
        first[attempt] = min(began_at, first.get(attempt, began_at))
    superseded_from: dict[int, float] = {}
    earliest = float("inf")
    for attempt in sorted(first, reverse=True):
        superseded_from[attempt] = earliest
        earliest = min(earliest, first[attempt])
    merged: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row["step"] < superseded_from[_attempt(row)]:
            merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def _is_validation(row: dict[str, Any]) -> bool:
    metrics = row.keys() - {"step", "attempt", "time"}
    return bool(metrics) and all(is_of_validation(name) for name in metrics)


def _attempt(row: dict[str, Any]) -> int:
    attempt = row.get("attempt", 1)
    return attempt if isinstance(attempt, int) else 1
