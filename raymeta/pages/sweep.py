"""The page of a sweep: the best configuration to copy, which options mattered, every trial with how it ended.

A sweep is a folder `sweeps/ID/` with `sweep.yaml`, `summary.json` {status, metric, mode, best, importance, ...},
`trials.csv` with a row for each trial, `best.yaml`, `records/`, and `trials/` of ordinary run directories.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from raymeta.errors import DataError
from raymeta.figures import sweep as figures
from raymeta.figures.style import Spec, is_number
from raymeta.figures.sweep import Trials
from raymeta.pages.document import Block, Page, chart, code, fact, interval_of, note, score, section, table, when, wide
from raymeta.pages.sources import Stamped, csv_rows, json_object, problems_of, read_bounded, stamp_of
from raymeta.reading import parse_json
from raymeta.runs.read import STALE_S, yaml_mapping
from raymeta.their_code import trust_flag

Row = dict[str, Any]
COLUMNS = ("trial", "status", "reason", "step", "value", "ci95", "seed", "wall_s", "params_sha256", "run")
"""Columns of `trials.csv` that are not options of the configuration."""
SWEEP_FILES = ("summary.json", "sweep.yaml", "trials.csv")
"""Of which any makes a folder a sweep."""
OVERVIEW = ("importance", "history", "curves")
MAX_TRIALS = 2_000
MAX_CURVES = 200
MAX_PANELS = 8


class SweepSource:
    """One sweep directory as pages see it. Any file may be absent, torn, huge or gone the next moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._summary = Stamped(path / "summary.json", json_object)
        self._file = Stamped(path / "sweep.yaml", yaml_mapping)
        self._base = Stamped(path / "base.yaml", yaml_mapping)
        self._trials = Stamped(path / "trials.csv", lambda data: {"rows": csv_rows(data)})
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
        return found.removeprefix("val/")

    @property
    def higher(self) -> bool:
        return str(self.summary.get("mode") or self._file.value().get("mode") or "max") == "max"

    @property
    def best(self) -> Row:
        found = self.summary.get("best")
        return found if isinstance(found, dict) else {}

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
        for path in sorted((self.path / "records").glob("*.json"))[:MAX_CURVES]:
            file = self._records.setdefault(path.name, Stamped(path, json_object))
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
        return Trials(rows, varied or keys, self.higher, self.metric)

    def row(self) -> Row:
        """What the list of sweeps shows."""
        best = {"name": self.metric, "value": self.best.get("value"), "ci95": self.best.get("ci95")}
        return {"id": self.id, "status": self.status, "trials": len(self.trials()), "score": score(best)}


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


def sweep_figures(source: SweepSource) -> dict[str, Spec]:
    """All figures of a sweep by name."""
    trials = source.scored()
    if not trials.rows:
        return {}
    known = source.summary.get("importance")
    found = {"parallel": figures.parallel(trials), "history": figures.history(trials)}
    found["curves"] = figures.curves(source.reports(), trials)
    if len(trials.rows) >= 4:
        found["importance"] = figures.importances(trials, known if isinstance(known, dict) else None)
    for key in trials.keys[:MAX_PANELS]:
        found[f"against:{key}"] = figures.against_score(trials, key)
    numeric = [k for k in trials.keys if all(is_number(v) for v in trials.column(k))]
    rates = [k for k in numeric if k.endswith("lr")] if sum(k.endswith("lr") for k in numeric) >= 2 else numeric
    for first, second in list(combinations(rates, 2))[:3]:
        found[f"contour:{first}:{second}"] = figures.contour(trials, first, second)
    return found


def sweep_page(source: SweepSource, *, runs: Mapping[str, str] | None = None) -> Page:
    """Everything there is to see of a sweep; `runs` maps the folders of its trials to ids that can be opened."""
    figures_ = sweep_figures(source)
    charts = {name: chart(name, spec) for name, spec in figures_.items()}
    trials = source.trials()
    panels = [block for name, block in charts.items() if name.startswith(("against:", "contour:"))]
    sections = [
        section("why", "What happened", _ending(source)),
        section("best", "Best configuration", _best(source)),
        section("trials", "All trials", [wide(charts.get("parallel")), _table(source, trials, runs or {})]),
        section("options", "Which options mattered", [*(charts.get(name) for name in OVERVIEW), *panels]),
        section("failures", "Failed and stopped early", _failures(trials)),
    ]
    return {
        "kind": "sweep",
        "id": source.id,
        "title": source.id,
        "status": source.status,
        "live": source.status == "running",
        "facts": _facts(source, trials),
        "sections": [s for s in sections if s["blocks"]],
    }


def _facts(source: SweepSource, trials: list[Row]) -> list[dict[str, str]]:
    best = {"name": source.metric, "value": source.best.get("value"), "ci95": source.best.get("ci95")}
    states = {state: sum(t["status"] == state for t in trials) for state in dict.fromkeys(t["status"] for t in trials)}
    facts = [
        fact("Best score", score(best), f"{source.metric}, trial {source.best.get('trial', '–')}"),
        fact("Trials", f"{len(trials):,}", ", ".join(f"{n} {state}" for state, n in states.items())),
    ]
    if created := source.summary.get("created"):
        facts.append(fact("Created", when(created)))
    return facts


def _ending(source: SweepSource) -> list[Block | None]:
    """Why the sweep is not running any more, where that is not simply that it is finished."""
    reason = str(source.summary.get("reason") or "")
    tone = "info"
    if source.status == "lost":
        text, tone = "The sweep is lost: its driver is gone without a word. Trials that ended are kept.", "bad"
    elif source.status == "failed":
        text, tone = f"The sweep failed. {reason}", "bad"
    elif source.status == "stopped":
        text = f"The sweep was stopped ({reason or 'no reason is written'}); its trials are saved."
    else:
        return []
    return [
        note(text, tone),
        code("Continue it", f"raymeta tune --resume {shlex.quote(str(source.path))}{source.trust}"),
    ]


def _best(source: SweepSource) -> list[Block | None]:
    blocks: list[Block | None] = [note(problem, "bad") for problem in source.problems]
    path = source.path / "best.yaml"
    if stamp_of(path) is None:
        return [*blocks, note("No trial has a score yet.")] if not source.best else blocks
    try:
        blocks.append(code("best.yaml", read_bounded(path, 2**20).decode(errors="replace")))
    except DataError as error:
        blocks.append(note(f"best.yaml cannot be read: {error}", "bad"))
    return [*blocks, code("Train it", f"raymeta train -c {shlex.quote(str(path))}")]


def _table(source: SweepSource, trials: list[Row], runs: Mapping[str, str]) -> Block | None:
    keys = list(dict.fromkeys(key for trial in trials for key in trial["config"]))
    percent = 100 if source.metric == "accuracy" else 1
    rows = []
    for trial in trials:
        shown = round(percent * trial["value"], 4) if is_number(trial["value"]) else None
        ci95 = interval_of(trial)
        known = runs.get(trial["run"])
        first: object = {"text": trial["trial"], "run": known} if known else trial["trial"]
        cells = [first, trial["status"], shown, None if ci95 is None else round(percent * ci95, 4), trial["step"]]
        rows.append([*cells, *(_cell(trial["config"].get(key)) for key in keys)])
    unit = f"{source.metric} in %" if percent == 100 else source.metric
    return table("trials", "Trials", ["Trial", "Status", unit, "± 95 %", "Steps", *keys], rows)


def _cell(found: object) -> object:
    if isinstance(found, float):
        return float(f"{found:.4g}")
    return found if found is None or isinstance(found, int | str) else str(found)


def _failures(trials: list[Row]) -> list[Block | None]:
    ended = [trial for trial in trials if trial["reason"] or trial["status"] in ("failed", "stopped early")]
    rows = [[t["trial"], t["status"], t["step"], t["reason"] or "–"] for t in ended]
    return [table("failures", "Trials that ended early", ("Trial", "Status", "Steps", "Reason"), rows)]
