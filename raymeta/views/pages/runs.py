"""The page of all runs: a row each, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raymeta.runs.layout import HIGHLIGHTS
from raymeta.runs.listing import OWN_KEYS, SUMMARY_KEYS
from raymeta.trackers.scores import rank
from raymeta.views.figures.style import is_number
from raymeta.views.pages.document import Page, fact, score, when
from raymeta.views.sources.run import RunSource
from raymeta.views.sources.sweep import SweepSource

START = "raymeta train --workers 2"


def listed(source: RunSource) -> dict[str, Any]:
    """A run as `GET /api/runs` gives it, with the names of `raymeta runs ls --json`."""
    run, summary, config = source.run, source.summary, source.config
    row: dict[str, Any] = {key: run.info.get(key) for key in OWN_KEYS}
    row |= {"id": source.id, "name": run.name, "status": run.status, "ending": run.ending.how}
    row |= {key: summary.get(key) for key in SUMMARY_KEYS}
    row["config"] = {key: config[key] for key in HIGHLIGHTS if key in config}
    if problems := source.problems:
        row["problem"] = "; ".join(problems)
    return row


def runs_page(folder: str, sources: Sequence[RunSource], sweeps: Sequence[SweepSource]) -> Page:
    """All runs and sweeps of a folder."""
    rows = [_row(source) for source in sources]
    counts = {status: sum(row["status"] == status for row in rows) for status in ("running", "failed", "lost")}
    facts = [fact("Runs", f"{len(rows):,}")]
    facts += [fact(status.capitalize(), f"{number:,}") for status, number in counts.items() if number]
    return {
        "kind": "runs",
        "id": "",
        "title": "Runs",
        "status": "",
        "live": True,
        "folder": folder,
        "start": START,
        "facts": facts,
        "runs": rows,
        "sweeps": [_sweep_row(sweep) for sweep in sweeps],
        "sections": [],
    }


def _row(source: RunSource) -> dict[str, Any]:
    info, headline, config = source.run.info, source.headline, source.config
    step, steps = info.get("step"), info.get("steps")
    tags = info.get("tags")
    return {
        "id": source.id,
        "name": source.run.name,
        "status": source.run.status,
        "ending": source.run.ending.how,
        "reason": str(info.get("reason") or "") if source.run.status in ("failed", "lost", "stopped") else "",
        "problem": "; ".join(source.problems),
        "step": step if is_number(step) else 0,
        "steps": steps if is_number(steps) else 0,
        "score": score(headline),
        "rank": _rank(headline),
        "algorithm": str(config.get("algorithm.name", "–")),
        "tasks": str(config.get("tasks.name", "–")),
        "model": str(config.get("model.name", "–")),
        "tags": [str(tag) for tag in tags] if isinstance(tags, list) else [],
        "created": when(source.run.created),
    }


def _sweep_row(source: SweepSource) -> dict[str, Any]:
    best = {"name": source.metric, "value": source.best.get("value"), "ci95": source.best.get("ci95")}
    return {"id": source.id, "status": source.status, "trials": len(source.trials()), "score": score(best)}


def _rank(headline: dict[str, Any] | None) -> float | None:
    """Larger is better, for any score."""
    return None if headline is None else rank(headline)
