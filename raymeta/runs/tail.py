"""Following a growing `.jsonl` file in bounded memory and bounded time, however long it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

from raymeta.runs.rows import complete_row
from raymeta.system.reading import open_regular

KEEP_ROWS = 6_000
"""Rows held; where a file has more, an even choice of them."""
READ_BYTES = 8 * 2**20
"""What is read whole at once; of a longer stretch, an even choice of lines is read."""
CHOICE_BYTES = 2**12
"""Read for each line of such a choice, so that its cost is bounded however long the lines are."""
LINE_BYTES = 2**18
"""A longer line is left out."""

Row = dict[str, Any]


class Tail:
    """Complete rows of the file at `path`, read on from where the last look ended.

    A file that shrank or was replaced is read from its beginning, one that is gone has no rows. The first row of each
    attempt is always kept: it tells which older rows it supersedes.
    """

    def __init__(self, path: Path, *, keep: int = KEEP_ROWS, read_bytes: int = READ_BYTES) -> None:
        self.path = path
        self._keep, self._read_bytes = keep, read_bytes
        self._forget(-1)

    def _forget(self, inode: int) -> None:
        self._rows: list[Row] = []
        self._newest: Row | None = None  # where it is not the last of `_rows`
        self._offset, self._inode, self._stride, self._seen = 0, inode, 1, 0

    def rows(self) -> list[Row]:
        """The rows there are now, `keep` and a few at most; null is a number not finite, see `files.nan_for_null`."""
        try:
            with open_regular(self.path) as file:
                self._follow(file)
        except OSError:
            self._forget(-1)
        return self._rows if self._newest is None else [*self._rows, self._newest]

    def _follow(self, file: IO[bytes]) -> None:
        found = os.fstat(file.fileno())
        if found.st_ino != self._inode or found.st_size < self._offset:
            self._forget(found.st_ino)
        if found.st_size - self._offset > self._read_bytes:
            self._forget(found.st_ino)
            self._choose(file, max(0, found.st_size - LINE_BYTES))
        file.seek(self._offset)
        data = file.read(max(0, found.st_size - self._offset))
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].splitlines():
            self._add(line)

    def _choose(self, file: IO[bytes], size: int) -> None:
        """Read an even choice of `keep` lines among the first `size` bytes, and stand behind the last of them."""
        lines, read = 0, 0
        for place in range(self._keep):
            file.seek(size * place // self._keep)
            complete = file.read(CHOICE_BYTES).split(b"\n")[1 if place else 0 : -1]  # begins within a line, but for 0
            if not complete:
                continue
            lines, read = lines + 1, read + len(complete[0]) + 1
            row = complete_row(complete[0])
            if row is not None and (not self._rows or row != self._rows[-1]):
                self._rows.append(row)
        file.seek(size)
        file.readline(LINE_BYTES)
        self._offset = file.tell()
        self._stride = max(1, size * lines // max(1, read) // self._keep)

    def _add(self, line: bytes) -> None:
        if len(line) > LINE_BYTES or (row := complete_row(line)) is None:
            return
        new_attempt = not self._rows or row.get("attempt") != (self._newest or self._rows[-1]).get("attempt")
        self._seen += 1
        if not new_attempt and self._seen % self._stride:
            self._newest = row
            return
        self._newest = None
        self._rows.append(row)
        if len(self._rows) > self._keep:
            self._rows = thin(self._rows, -(-len(self._rows) // 2))  # every second one
            self._stride *= 2


def thin(rows: list[Row], limit: int) -> list[Row]:
    """An even choice of about `limit` rows, with the first, the last, and the first of each attempt."""
    stride = -(-len(rows) // limit)
    if stride <= 1:
        return rows
    last = len(rows) - 1
    return [
        row
        for i, row in enumerate(rows)
        if i % stride == 0 or i == last or row.get("attempt") != rows[i - 1].get("attempt")
    ]
