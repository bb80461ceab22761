"""The files of a sweep: whatever a page, a report or a notebook asks of them.

A sweep is a folder `sweeps/ID/` with `sweep.yaml`, `summary.json` {status, metric, mode, best, importance, ...},
`trials.csv` with a row for each trial, `best.yaml`, `records/`, and `trials/` of ordinary run directories.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raymeta.runs import layout
from raymeta.runs.read import STALE_S, yaml_mapping
from raymeta.system.reading import parse_json
from raymeta.system.their_code import trust_flag
from raymeta.trackers.scores import name_in
from raymeta.views.figures.style import is_number
from raymeta.views.figures.sweep import Trials
from raymeta.views.sources.files import Row, Stamped, csv_rows, json_object, problems_of, stamp_of

COLUMNS = ("trial", "status", "reason", "step", "value", "ci95", "seed", "wall_s", "params_sha256", "run")
"""Columns of `trials.csv` that are not options of the configuration."""
MAX_TRIALS = 2_000
MAX_CURVES = 200
MAX_DEPTH = 12
"""Of choices under choices in a sweep's file that are looked at."""


class SweepSource:
    """One sweep directory as pages see it. Any file may be absent, torn, huge or gone the next moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._summary = Stamped(path / layout.SUMMARY, json_object)
        self._file = Stamped(path / layout.SWEEP, yaml_mapping)
        self._base = Stamped(path / layout.BASE, yaml_mapping)
        self._trials = Stamped(path / layout.TABLE, lambda data: {"rows": csv_rows(data)})
        self._records: dict[str, Stamped] = {}

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def trust(self) -> str:
        """` --trust` for a command on a sweep whose files name code."""
        return trust_flag([self._file.value(), self._base.value()])

    @property
    def summary(self) -> Row:
        return self._summary.value()

    @property
    def status(self) -> str:
        """What `summary.json` says, except that a sweep whose driver is gone is `lost`; no file is no driver."""
        status = str(self.summary.get("status") or "running")
        if status != "running":
            return status
        beat = stamp_of(self._summary.path)
        return "running" if beat is not None and time.time() - beat[0] / 1e9 < STALE_S else "lost"

    @property
    def metric(self) -> str:
        found = str(self.summary.get("metric") or self._file.value().get("metric") or "score")
        return name_in(found)

    @property
    def higher(self) -> bool:
        return str(self.summary.get("mode") or self._file.value().get("mode") or "max") == "max"

    @property
    def best(self) -> Row:
        found = self.summary.get("best")
        return found if isinstance(found, dict) else {}

    @property
    def held_out(self) -> Row:
        """The table of held-out domains; empty for other sweeps, and where it is no table."""
        table = self.summary.get("held_out")
        if not isinstance(table, dict) or not isinstance(table.get("score"), str):
            return {}
        domains, rows = table.get("domains"), table.get("rows")
        if not isinstance(domains, list) or not isinstance(rows, list):
            return {}
        whole = all(_is_row_of_domains(row) for row in rows) and all(isinstance(name, str) for name in domains)
        return table if whole and rows and len(rows) <= MAX_CURVES else {}

    @property
    def problems(self) -> list[str]:
        return problems_of(self._summary, self._file, self._trials)

    def trials(self) -> list[Row]:
        """{trial, status, reason, step, value, ci95, run, config} in the order of the files."""
        rows = self.summary.get("trials")
        if not isinstance(rows, list):
            rows = [_of_cells(row) for row in self._trials.value().get("rows", [])]
        return [_trial(row, i) for i, row in enumerate(rows[:MAX_TRIALS]) if isinstance(row, dict)]

    def reports(self) -> dict[str, list[tuple[int, float]]]:
        """(step, score) of each validation of each trial, from `records/`."""
        found = {}
        for path in sorted((self.path / layout.RECORDS).glob("*.json"))[:MAX_CURVES]:
            file = self._records.setdefault(path.name, Stamped(path, _record))
            rows = file.value().get("reports")
            good = [(r[0], r[1]) for r in rows if _is_report(r)] if isinstance(rows, list) else []
            if good:
                found[path.stem] = good
        return found

    def scored(self) -> Trials:
        """The trials with a score, and the options that differ among them."""
        rows = [row for row in self.trials() if is_number(row["value"])]
        keys = list(dict.fromkeys(key for row in rows for key in row["config"]))
        varied = [key for key in keys if len({repr(row["config"].get(key)) for row in rows}) > 1]
        return Trials(rows, varied or keys, self.higher, self.metric, self.logarithmic)

    @property
    def logarithmic(self) -> frozenset[str]:
        """The options that were drawn by logarithm, as the sweep's file says."""
        return frozenset(_drawn_by_logarithm(self._file.value().get("space"), MAX_DEPTH))


def _is_row_of_domains(row: object) -> bool:
    if not isinstance(row, dict):
        return False
    config, scores = row.get("config"), row.get("scores")
    return isinstance(config, dict) and isinstance(scores, dict) and all(isinstance(s, dict) for s in scores.values())


def _drawn_by_logarithm(space: object, depth: int) -> Iterator[str]:
    """Keys of `loguniform`, wherever they stand under choices."""
    if not isinstance(space, dict) or depth == 0:
        return
    for key, domain in space.items():
        if isinstance(domain, dict) and "loguniform" in domain:
            yield str(key)
        else:
            yield from _drawn_by_logarithm(domain, depth - 1)


def _record(data: bytes) -> Row:
    return layout.read_format(json_object(data))


def _is_report(row: object) -> bool:
    return isinstance(row, list) and len(row) >= 2 and isinstance(row[0], int) and is_number(row[1])


def _of_cells(row: Mapping[str, Any]) -> Row:
    """A row of `trials.csv` as `summary.json` would hold it."""
    cells = {str(key): value(text) for key, text in row.items() if key is not None}
    own = {key: cells.pop(key, None) for key in COLUMNS}
    return own | {"config": {key: found for key, found in cells.items() if found is not None}}


def _trial(row: Row, position: int) -> Row:
    """One trial with what pages rely on, whatever its file said."""
    config, name = row.get("config"), row.get("trial")
    return {
        "trial": str(position if name is None else name),
        "status": str(row.get("status") or "–"),
        "reason": str(row.get("reason") or ""),
        "step": row["step"] if is_number(row.get("step")) else None,
        "value": row.get("value"),
        "ci95": row.get("ci95"),
        "run": Path(str(row.get("run") or name)).name,
        "config": config if isinstance(config, dict) else {},
    }


def value(text: object) -> Any:
    """A cell of a CSV file as what it was: a number, a boolean, a list, text; None for an empty cell."""
    if not isinstance(text, str) or text == "":
        return None
    try:
        found = parse_json(text)
    except ValueError:
        return text
    return found if not isinstance(found, dict) else text
