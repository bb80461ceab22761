"""A run as one row: what can be listed, sorted and filtered, on the terminal and in the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raymeta.errors import RaymetaError
from raymeta.runs.layout import HIGHLIGHTS
from raymeta.runs.read import Run
from raymeta.system.text import dotted

Row = dict[str, Any]

OWN_KEYS = ("id", "name", "status", "ending", "step", "steps", "attempt", "created", "updated", "host", "tags")
SUMMARY_KEYS = ("headline", "tasks_per_s", "wall_s")


def listing_row(run: Run, *, whole: bool = True) -> Row:
    """Own keys, summary keys, and under `config` the configuration's dotted keys; `problem` says what is damaged.

    Unless `whole`, the names of the variants are enough, and most configurations are not read.
    """
    row: Row = {key: run.info.get(key) for key in OWN_KEYS}
    row.update(id=run.id, name=run.name, status=run.status, ending=run.ending.how, config={})
    try:
        summary = run.summary or {}
        row["config"] = (not whole and run.variants) or dotted(run.config)
    except RaymetaError as error:  # one damaged run must not hide the others; the list says so in its place
        summary = {}
        row["problem"] = str(error)
    row.update({key: summary.get(key) for key in SUMMARY_KEYS})
    return row


def public_row(row: Row) -> Row:
    """`listing_row` with the names of the variants as its only configuration: what programs are given."""
    return {**row, "config": {key: row["config"].get(key) for key in HIGHLIGHTS if key in row["config"]}}


def told_apart(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its id, with the folders above it where another has the same, as trials of two sweeps."""
    places = [_place(run).split("/") for run in runs]
    return ["/".join(_shortest_end(own, [other for other in places if other != own])) for own in places]


def _place(run: Run) -> str:
    return str(run.mirror or run.path.resolve())


def _shortest_end(parts: list[str], others: Sequence[list[str]]) -> list[str]:
    """The last parts, as many as it takes to be none of the others'."""
    enough = (n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others))
    return parts[-next(enough, len(parts)) :]


def without_repetition(runs: Sequence[Run]) -> list[Run]:
    """The runs, each once."""
    return list({_place(run): run for run in runs}.values())
