"""Rows of a table in a file: CSV, TSV or JSON lines, each also packed by gzip, or Parquet."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from raymeta.errors import DataError
from raymeta.system.reading import ROWS_BYTES, first_line, parse_json, read_regular

Row = dict[str, Any]
KINDS = (".csv", ".tsv", ".jsonl", ".parquet")


def rows_of_file(path: Path) -> list[Row]:
    """The rows of a table by column. Raises `DataError` naming file and line."""
    kind = _kind(path)
    if kind not in KINDS:
        raise DataError(f"{path} is no table that is known here: give {', '.join(KINDS)}, or a folder of images")
    try:
        data = read_regular(path, ROWS_BYTES)
        data = _unpacked(data) if path.suffix.lower() == ".gz" else data
        rows = _of_parquet(data, path) if kind == ".parquet" else _of_text(data.decode("utf-8-sig"), kind, path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def stamp_of_file(path: Path) -> str:
    """Another text whenever the file is replaced. Raises `DataError` where there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"there is no file {path}: give one of {', '.join(KINDS)} as tasks.file") from error
    return hashlib.sha256(f"{path}\n{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()


def require_columns(rows: Sequence[Row], columns: Sequence[str], where: str) -> None:
    """Raise `DataError` for a column that is missing in any row."""
    for number, row in enumerate(rows, 1):
        missing = [name for name in columns if name not in row]
        if missing:
            raise DataError(f"{where} row {number} has no column {missing[0]}: it has {', '.join(map(str, row))}")


def _kind(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _unpacked(data: bytes) -> bytes:
    """Of at most `ROWS_BYTES`: a small file may hold any number of zeros."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        content = file.read(ROWS_BYTES + 1)
    if len(content) > ROWS_BYTES:
        raise ValueError(f"it unpacks to more than {ROWS_BYTES / 2**20:g} MB")
    return content


def _of_text(text: str, kind: str, path: Path) -> list[Row]:
    of = {".csv": _csv_rows, ".tsv": _tsv_rows, ".jsonl": _json_rows}[kind]
    return list(of(text, path))


def _of_parquet(data: bytes, path: Path) -> list[Row]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet is read by pyarrow: pip install 'raymeta[storage]', or give CSV") from error
    rows: list[Row] = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    return rows


def _csv_rows(text: str, path: Path) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        _require_distinct(reader.fieldnames or (), path)
        for row in reader:
            if None in row or None in row.values():
                raise DataError(f"{path} line {reader.line_num}: {_UNEVEN}")
            yield dict(row)
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: {error}") from error


def _require_distinct(names: Sequence[str], path: Path) -> None:
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise DataError(f"{path} line 1: two columns are called {twice[0]!r}: rename or remove one")


_UNEVEN = "it has not as many fields as the first line has names"
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


def _tsv_rows(text: str, path: Path) -> Iterator[Row]:
    """Every line is a row: a lone quotation mark is a sign like others, and would swallow all lines up to the next."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    names = [_unquoted(field) for field in lines[0].split("\t")]
    _require_distinct(names, path)
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        fields = [_unquoted(field) for field in line.split("\t")]
        if len(fields) != len(names):
            raise DataError(f"{path} line {number}: {_UNEVEN}")
        yield dict(zip(names, fields, strict=True))


def _unquoted(field: str) -> str:
    """Without the quotation marks that some programs put around a field."""
    quoted = _QUOTED.fullmatch(field)
    return quoted[1].replace('""', '"') if quoted else field


def _json_rows(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{path} line {number} is no JSON: {first_line(error)}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number} is no JSON object")
        yield row


def as_json(rows: Sequence[Row]) -> bytes:
    """The same bytes for the same values, on any machine."""
    return json.dumps(rows, sort_keys=True, default=str).encode()
