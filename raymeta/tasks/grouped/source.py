"""Examples that come from a file, or were handed over in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from raymeta.options import STRICT
from raymeta.tasks.data_folder import Folder
from raymeta.tasks.grouped.base import Grouped
from raymeta.tasks.grouped.handed_over import handed_over
from raymeta.tasks.rows import rows_of_file, stamp_of_file


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sourced(Grouped):
    """Groups of one file, read again when it is replaced; or of data known by their hash."""

    file: Folder | None = None
    """the file: .csv, .tsv or .jsonl (each also .gz) or .parquet; of arrays .npz"""
    sha256: str | None = None
    """of data that were handed over in Python, in place of a file"""

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if (self.file is None) == (self.sha256 is None):
            raise ValueError("give the data as tasks.file")
        return self

    @property
    def where(self) -> str:
        """What errors call the source."""
        return "the data" if self.file is None else Path(self.file).name

    def stamp(self) -> str:
        return self.sha256 or "" if self.file is None else stamp_of_file(Path(self.file))

    def content(self, maker: str) -> Any:
        """What was handed over to `raymeta.tasks.MAKER`, or the file holds."""
        return handed_over(str(self.sha256), maker) if self.file is None else self.read(Path(self.file))

    def read(self, path: Path) -> Any:
        """What a file holds: rows, unless a subclass says otherwise."""
        return rows_of_file(path)
