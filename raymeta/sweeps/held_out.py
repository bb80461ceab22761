"""Leave one domain out: the test scores of a sweep over `tasks.held_out`, a row for each of its other settings."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raymeta.sweeps.records import Record, Report, mean_and_interval
from raymeta.system.files import json_text
from raymeta.system.text import settings_text
from raymeta.trackers.scores import value_text

KEY = "tasks.held_out"


def held_out_table(records: Sequence[Record], keys: Iterable[str]) -> dict[str, Any] | None:
    """{score, domains, rows: [{config, scores: {DOMAIN: {mean, ci95, runs}}, mean}]}; None for other sweeps.

    Scores are those of the final tests of trials that finished: means over repeats with Student's interval, of a single
    run its own interval over test episodes. `mean` is over domains, once each of them has a score.
    """
    if KEY not in keys:
        return None
    domains = list(dict.fromkeys(str(record.point[KEY]) for record in records if KEY in record.point))
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(json_text(_others(record)), []).append(record)
    tested = [record for record in records if _is_tested(record)]
    name = tested[0].headline["name"] if tested and tested[0].headline else "accuracy"
    rows = [_row(group, domains) for group in groups.values()]
    return {"score": name, "domains": domains, "rows": rows}


def _others(record: Record) -> dict[str, Any]:
    """A trial's settings besides its domain."""
    return {key: value for key, value in record.point.items() if key != KEY}


def _is_tested(record: Record) -> bool:
    return record.status == "finished" and record.headline is not None


def _row(group: Sequence[Record], domains: Sequence[str]) -> dict[str, Any]:
    scores = {}
    for domain in domains:
        reports = [_tested(r) for r in group if _is_tested(r) and str(r.point.get(KEY)) == domain]
        if reports:
            mean, ci95 = mean_and_interval(reports)
            scores[domain] = {"mean": mean, "ci95": ci95, "runs": len(reports)}
    whole = len(scores) == len(domains) > 0
    over_domains = sum(score["mean"] for score in scores.values()) / len(domains) if whole else None
    return {"config": _others(group[0]), "scores": scores, "mean": over_domains}


def _tested(record: Record) -> Report:
    headline: Mapping[str, Any] = record.headline or {}
    ci95 = headline.get("ci95")
    return Report(record.step, headline["value"], float("inf") if ci95 is None else ci95)


def as_csv(table: Mapping[str, Any]) -> str:
    """A row for each of the settings and a column for each domain."""
    keys = list(dict.fromkeys(key for row in table["rows"] for key in row["config"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, *table["domains"], "mean"])
    for row in table["rows"]:
        scores = [row["scores"].get(domain, {}).get("mean") for domain in table["domains"]]
        writer.writerow([*(row["config"].get(key) for key in keys), *scores, row["mean"]])
    return text.getvalue()


def lines_of(table: Mapping[str, Any]) -> list[str]:
    """The table for people."""
    name = table["score"]
    lines = [f"{name} of the held-out domain:"]
    for row in table["rows"]:
        scores = [
            f"{domain}: {value_text(name, score['mean'], score['ci95'])}" for domain, score in row["scores"].items()
        ]
        mean = [] if row["mean"] is None else [f"mean of domains {value_text(name, row['mean'])}"]
        lines.append(f"  {settings_text(row['config'])}: " + "; ".join([*scores, *mean] or ["not tested yet"]))
    return lines
