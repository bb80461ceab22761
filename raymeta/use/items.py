"""The examples that a command line names: files, folders, patterns, names on standard input, rows of tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from raymeta.errors import ConfigError, DataError
from raymeta.tasks.images.files import image_paths
from raymeta.tasks.rows import rows_of_file

STANDARD_INPUT = "-"


def named_items(arguments: Sequence[str], kind: str) -> tuple[list[str], list[Any]]:
    """What to call each example, as it was given, and the example for the model's reader.

    Raises `DataError` for files that are not there, `ConfigError` where nothing is left.
    """
    names = [name for argument in arguments for name in _expanded(argument)]
    if kind == "pictures":
        return names, [Path(name) for name in names]
    pairs = [(f"{name}:{n}", row) for name in names for n, row in enumerate(rows_of_file(Path(name)), 1)]
    return [name for name, _ in pairs], [row for _, row in pairs]


def _expanded(argument: str) -> Iterator[str]:
    path = Path(argument)
    if argument == STANDARD_INPUT:
        yield from (line.strip() for line in sys.stdin if line.strip())
    elif path.is_dir():
        files = image_paths(path)
        if not files:
            raise DataError(f"{path} has no images: name files, or a folder that holds them directly")
        yield from map(str, files)
    elif path.exists():
        yield argument
    elif any(letter in argument for letter in "*?["):
        found = sorted(map(str, Path(path.anchor or ".").glob(argument.removeprefix(path.anchor))))
        if not found:
            raise ConfigError(f"no file fits {argument}")
        yield from found
    else:
        raise DataError(f"there is no file {argument}")
