"""The page of a sweep: the best configuration to copy, which options mattered, every trial with how it ended."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from itertools import combinations

from raymeta.errors import DataError
from raymeta.runs import layout
from raymeta.trackers.scores import score_named
from raymeta.views.figures import domains
from raymeta.views.figures import sweep as figures
from raymeta.views.figures.style import Spec, is_number
from raymeta.views.pages.document import (
    Block,
    Page,
    chart,
    code,
    fact,
    interval_of,
    note,
    score,
    section,
    table,
    when,
    wide,
)
from raymeta.views.sources.files import Row, read_bounded, stamp_of
from raymeta.views.sources.sweep import SweepSource

SWEEP_FILES = layout.OF_SWEEP
"""Of which any makes a folder a sweep."""
OVERVIEW = ("importance", "history", "curves")
MAX_PANELS = 8


def sweep_figures(source: SweepSource) -> dict[str, Spec]:
    """All figures of a sweep by name."""
    trials = source.scored()
    if not trials.rows:
        return {}
    known = source.summary.get("importance")
    found = {"parallel": figures.parallel(trials), "history": figures.history(trials)}
    found["curves"] = figures.curves(source.reports(), trials)
    if source.held_out:
        found["domains"] = domains.by_domain(source.held_out)
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
        section("domains", "Held-out domains", [wide(charts.get("domains"))]),
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
    path = source.path / layout.BEST
    if stamp_of(path) is None:
        return [*blocks, note("No trial has a score yet.")] if not source.best else blocks
    try:
        blocks.append(code(layout.BEST, read_bounded(path, 2**20).decode(errors="replace")))
    except DataError as error:
        blocks.append(note(f"best.yaml cannot be read: {error}", "bad"))
    return [*blocks, code("Train it", f"raymeta train -c {shlex.quote(str(path))}")]


def _table(source: SweepSource, trials: list[Row], runs: Mapping[str, str]) -> Block | None:
    keys = list(dict.fromkeys(key for trial in trials for key in trial["config"]))
    kind = score_named(source.metric)
    rows = []
    for trial in trials:
        shown = round(kind.scale * trial["value"], 4) if is_number(trial["value"]) else None
        ci95 = interval_of(trial)
        known = runs.get(trial["run"])
        first: object = {"text": trial["trial"], "run": known} if known else trial["trial"]
        cells = [first, trial["status"], shown, None if ci95 is None else round(kind.scale * ci95, 4), trial["step"]]
        rows.append([*cells, *(_cell(trial["config"].get(key)) for key in keys)])
    return table("trials", "Trials", ["Trial", "Status", kind.unit, "± 95 %", "Steps", *keys], rows)


def _cell(found: object) -> object:
    if isinstance(found, float):
        return float(f"{found:.4g}")
    return found if found is None or isinstance(found, int | str) else str(found)


def _failures(trials: list[Row]) -> list[Block | None]:
    ended = [trial for trial in trials if trial["reason"] or trial["status"] in ("failed", "stopped early")]
    rows = [[t["trial"], t["status"], t["step"], t["reason"] or "–"] for t in ended]
    return [table("failures", "Trials that ended early", ("Trial", "Status", "Steps", "Reason"), rows)]
