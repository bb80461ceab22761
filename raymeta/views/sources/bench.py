"""A file of measured meta-gradients: what `raymeta bench --json FILE` wrote.

A file counts as a result where it is a JSON object with `"kind": "bench"`. See `raymeta.views.pages.bench` for what is
read of it. Anything else in the file is passed over.
"""

from __future__ import annotations

from pathlib import Path

from raymeta.views.sources.files import Row, Stamped, json_object, problems_of

KIND = "bench"
MAX_CASES = 60


class BenchSource:
    """One file of measurements as the page sees it. It may be torn, huge, something else, or gone the next moment."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file = Stamped(path, json_object)

    @property
    def content(self) -> Row:
        return self._file.value()

    @property
    def is_result(self) -> bool:
        return self.content.get("kind") == KIND

    @property
    def problem(self) -> str:
        """Why nothing of the file can be shown; empty for a result and for a whole file of another kind."""
        return "; ".join(problems_of(self._file))

    @property
    def date(self) -> str:
        return str(self.content.get("date") or "")

    def cases(self) -> list[Row]:
        found = self.content.get("cases")
        return [case for case in found[:MAX_CASES] if isinstance(case, dict)] if isinstance(found, list) else []
