"""Runs held against one another: scores, differences on the same test tasks, options that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from raymeta.runs.listing import told_apart
from raymeta.runs.read import Run
from raymeta.runs.tables import evaluation
from raymeta.system.text import dotted
from raymeta.trackers.over_classes import pairs_text
from raymeta.trackers.scores import paired

Row = dict[str, Any]


class Pairs(NamedTuple):
    """Differences to one run over the same test tasks."""

    reference: str
    score: str
    rows: list[Row]  # {label, difference, ci95}
    left_out: list[str]  # scored on other test tasks
    note: str  # where the intervals say less than they seem to


def pair_up(tests: Mapping[str, Mapping[str, Any]]) -> Pairs | None:
    """Pair runs, given by label with their `eval/test.json`, with the first that shares its test tasks with another.

    None where fewer than two runs are scored.
    """
    scored = {label: test for label, test in tests.items() if test.get("values")}
    if len(scored) < 2:
        return None
    marks = {label: _episodes(test) for label, test in scored.items()}
    values = list(marks.values())
    reference = next((label for label, mark in marks.items() if mark and values.count(mark) > 1), next(iter(marks)))
    others = [label for label in marks if label != reference]
    same = [label for label in others if marks[label] and marks[label] == marks[reference]]
    rows = []
    for label in same:
        difference, ci95 = paired(scored[reference]["values"], scored[label]["values"])
        rows.append({"label": label, "difference": difference, "ci95": ci95})
    name = str(scored[reference].get("headline", {}).get("name"))
    note = pairs_text(scored[label].get("over_classes") for label in (reference, *same))
    return Pairs(reference, name, rows, [label for label in others if label not in same], note if rows else "")


def _episodes(test: Mapping[str, Any]) -> tuple[object, int] | None:
    """What identifies the list of test tasks; None where the file does not say."""
    settings = test.get("settings")
    mark = settings.get("episodes_sha256") if isinstance(settings, dict) else None
    return None if mark is None else (mark, len(test["values"]))


def comparison(runs: Sequence[Run]) -> Row:
    """{runs: [{id, status, ending, step, steps, headline}], paired, differences} for programs; each run once.

    Where ids are equal, the folders above tell the runs apart. Raises `DataError`.
    """
    named = dict(zip(told_apart(runs), runs, strict=True))
    pairs = pair_up({name: evaluation(run) for name, run in named.items()})
    return {
        "runs": [
            {
                "id": name,
                "status": r.status,
                "ending": r.ending.how,
                "step": r.ending.step,
                "steps": r.ending.steps,
                "headline": r.headline,
            }
            for name, r in named.items()
        ],
        "paired": None if pairs is None else pairs._asdict(),
        "differences": config_differences({name: dotted(run.config) for name, run in named.items()}),
    }


def config_differences(configs: Mapping[str, Mapping[str, object]]) -> list[Row]:
    """Keys in which the runs' dotted configurations differ: rows {key, values by run}."""
    keys = list(dict.fromkeys(key for config in configs.values() for key in config))
    rows = []
    for key in keys:
        values = {name: config.get(key) for name, config in configs.items()}
        if len({repr(value) for value in values.values()}) > 1:
            rows.append({"key": key, "values": values})
    return rows
