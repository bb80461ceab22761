"""Files that are read again only where they changed, bounded in size, and never raise."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from raymeta.errors import DataError
from raymeta.system.reading import first_line, parse_json, read_regular

Row = dict[str, Any]
LIMIT_BYTES = 16 * 2**20
"""A whole file above this is not shown."""


class Stamped:
    """The parsed content of a file, parsed again only when its stamp (time, size, inode) has changed."""

    def __init__(self, path: Path, parse: Callable[[bytes], Row]) -> None:
        self.path, self._parse = path, parse
        self._stamp: object = None
        self._value: Row = {}
        self.problem = ""
        """Why there is nothing to show although the file is there."""

    def value(self) -> Row:
        """The content; empty for a file that is absent, too large or damaged."""
        stamp = stamp_of(self.path)
        if stamp != self._stamp:
            self._stamp, self._value, self.problem = stamp, {}, ""
            if stamp is not None:
                try:
                    self._value = self._parse(read_bounded(self.path))
                except (DataError, ValueError, RecursionError, yaml.YAMLError) as error:
                    self.problem = f"{self.path.name} cannot be read: {first_line(error)}"
        return self._value


def problems_of(*files: Stamped) -> list[str]:
    """Why files that are there have nothing to show."""
    for file in files:
        file.value()
    return [file.problem for file in files if file.problem]


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file does; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def read_bounded(path: Path, limit: int = LIMIT_BYTES) -> bytes:
    """The bytes of a file; raises `DataError` for one that is larger than `limit` or cannot be read."""
    try:
        return read_regular(path, limit)
    except OSError as error:
        raise DataError(first_line(error)) from error


def json_object(data: bytes) -> Row:
    """A JSON object; raises `ValueError` for anything else."""
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def csv_rows(data: bytes) -> list[Row]:
    """Rows of a CSV file with a header; raises `ValueError` for anything else."""
    try:
        return list(csv.DictReader(data.decode().splitlines()))
    except csv.Error as error:  # a cell that is longer than any that we write
        raise ValueError(str(error)) from error
