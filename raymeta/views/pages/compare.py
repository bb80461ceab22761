"""The page that holds runs against one another: curves, scores, paired differences, what was configured otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from raymeta.runs.compare import config_differences, pair_up
from raymeta.trackers.axes import INNER_STEP, Axis
from raymeta.trackers.names import METRICS, TRAIN_QUERY_LOSS
from raymeta.trackers.scores import OF_GOAL, SCORES, values_of
from raymeta.views.figures import adaptation, comparison
from raymeta.views.figures.adaptation import Course
from raymeta.views.figures.comparison import Along, Curve
from raymeta.views.figures.style import is_number
from raymeta.views.pages.document import (
    Block,
    Page,
    chart,
    duration,
    fact,
    interval_of,
    intervals_of,
    note,
    score,
    section,
    table,
)
from raymeta.views.sources.run import RunSource

MAX_RUNS = 24
"""Lines that can still be told apart."""
PREFERRED = (*(SCORES[name].column for name in OF_GOAL.values()), TRAIN_QUERY_LOSS)


def compare_page(sources: Sequence[RunSource], *, metric: str = "", axis: str = "step", grouped: bool = False) -> Page:
    """Runs side by side. An unknown `metric` or `axis` is the first that there is."""
    sources = sources[:MAX_RUNS]
    rows = {source.id: source.metrics() for source in sources}
    present = [name for name in METRICS if any(is_number(row.get(name)) for found in rows.values() for row in found)]
    if metric not in present:
        metric = next((name for name in (*PREFERRED, *present) if name in present), "")
    along: Along = axis if axis in get_args(Along) else "step"  # type: ignore[assignment]
    labels = labels_of(sources)
    curves = [
        _curve(source, labels[source.id], rows[source.id], metric, along)._replace(place=place)
        for place, source in enumerate(sources)
    ]
    overlay = chart("overlay", comparison.overlay(curves, metric=metric, axis=along, grouped=grouped))
    sections = [
        section("curves", "Curves", [overlay or note("These runs have no curve to lay over one another yet.")]),
        section("scores", "Scores on test tasks", [*_scores(sources, labels), _endings(sources, labels)]),
        section("paired", "Paired differences", _paired(sources, labels)),
        section("differences", "Configured differently", [_differences(sources, labels)]),
    ]
    controls = [
        _control("metric", "Metric", metric, {name: name for name in present}),
        _control("axis", "Along", along, comparison.AXIS_TITLES),
        _control("grouped", "Lines", "1" if grouped else "0", {"0": "each run", "1": "groups of seeds"}),
    ]
    return {
        "kind": "compare",
        "id": "",
        "title": f"Compare {len(sources)} runs",
        "status": "",
        "live": any(source.run.status == "running" for source in sources),
        "facts": [
            fact(labels[s.id], score(s.headline), f"{s.run.ending.how}, {s.run.ending.steps_done} steps")
            for s in sources
        ],
        "links": {labels[s.id]: s.id for s in sources},
        "controls": controls,
        "sections": [s for s in sections if s["blocks"]],
    }


def labels_of(sources: Sequence[RunSource]) -> dict[str, str]:
    """Names where they tell runs apart, else with the last letters of the id, else ids."""
    names = [source.run.name for source in sources]
    marked = [f"{s.run.name} ({s.id.rsplit('_', 1)[-1]})" for s in sources]
    labels = {}
    for source, name, mark in zip(sources, names, marked, strict=True):
        labels[source.id] = name if names.count(name) == 1 else mark if marked.count(mark) == 1 else source.id
    return labels


def _control(name: str, label: str, value: str, options: Mapping[Any, str]) -> dict[str, Any]:
    return {"name": name, "label": label, "value": value, "options": [[key, text] for key, text in options.items()]}


def _curve(source: RunSource, label: str, rows: list[dict[str, Any]], metric: str, axis: Along) -> Curve:
    config = source.config
    batch = config.get("meta_batch_size")
    tasks = batch if is_number(batch) else 1
    minutes = minutes_of(rows)
    places: dict[Along, list[float]] = {
        "step": [row["step"] for row in rows],
        "time": minutes,
        "tasks": [row["step"] * tasks for row in rows],
    }
    points = [(x, row) for x, row in zip(places[axis], rows, strict=True) if is_number(row.get(metric))]
    ci95 = [row.get(f"{metric}_ci95") for _, row in points]
    ours = {key: value for key, value in config.items() if key not in ("seed", "output", "name", "tags")}
    known = [width for width in ci95 if is_number(width)]
    values = [row[metric] for _, row in points]
    return Curve(label, _group(source, ours), [x for x, _ in points], values, known if len(known) == len(ci95) else [])


def _group(source: RunSource, config: Mapping[str, Any]) -> str:
    """Runs that differ in their seed alone share it; its text is the name with what tells groups apart."""
    mark = sum(map(ord, repr(sorted(config.items(), key=str)))) % 9973
    return f"{source.run.name} #{mark}"


def minutes_of(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Minutes since the first row; the pause between two attempts does not count."""
    minutes, passed, before = [], 0.0, None
    for row in rows:
        now = row.get("time")
        if before is not None and is_number(now) and row.get("attempt") == before.get("attempt"):
            passed += max(0.0, now - before["time"]) / 60
        minutes.append(passed)
        before = row if is_number(now) else before
    return minutes


def _scores(sources: Sequence[RunSource], labels: Mapping[str, str]) -> list[Block | None]:
    places = {source.id: place for place, source in enumerate(sources)}
    scored = [(source, headline) for source in sources if (headline := source.headline) is not None]
    names = {headline["name"] for _, headline in scored}
    if len(names) > 1:
        return [note("These runs are scored by different metrics, so one picture cannot hold them.")]
    rows = [
        {
            "label": labels[s.id],
            "value": h["value"],
            "ci95": interval_of(h) or 0.0,
            "name": h["name"],
            "place": places[s.id],
        }
        for s, h in scored
    ]
    if not rows:
        return [note("None of these runs has a test score yet.")]
    name = names.pop()
    courses = [
        (source.axis, Course(labels[source.id], by_step, intervals_of(test), places[source.id]))
        for source, _ in scored
        if (test := source.evaluation) and (by_step := values_of(name, test["by_inner_step"]))
    ]
    return [chart("headlines", comparison.headlines(rows)), *_by_axis(courses, name)]


def _by_axis(courses: Sequence[tuple[Axis | None, Course]], name: str) -> list[Block | None]:
    """A figure for each axis that scores stand over; methods without inner steps are level lines in each."""
    axes = list(dict.fromkeys(axis for axis, _ in courses if axis is not None))
    return [
        chart(
            "by_inner_step" if axis.place == INNER_STEP else f"by:{axis.place}",
            adaptation.by_inner_step([c for of, c in courses if of in (axis, None)], score=name, axis=axis),
        )
        for axis in axes
    ]


def _endings(sources: Sequence[RunSource], labels: Mapping[str, str]) -> Block | None:
    """How far each run went: a run that stopped early may be worse for that alone."""
    rows = [
        [labels[s.id], s.run.ending.how, s.run.ending.steps_done, score(s.headline), duration(s.summary.get("wall_s"))]
        for s in sources
    ]
    return table("endings", "How the runs ended", ["Run", "Ended", "Outer steps", "Test score", "Time"], rows)


def _paired(sources: Sequence[RunSource], labels: Mapping[str, str]) -> list[Block | None]:
    pairs = pair_up({labels[source.id]: source.evaluation for source in sources})
    if pairs is None:
        return []
    places = {labels[source.id]: place for place, source in enumerate(sources)}
    rows = [row | {"place": places[row["label"]]} for row in pairs.rows]
    drawn = comparison.differences(rows, reference=pairs.reference, score=pairs.score)
    blocks: list[Block | None] = [chart("paired", drawn), note(pairs.note) if pairs.note else None]
    if pairs.left_out:
        names = ", ".join(pairs.left_out)
        blocks.append(note(f"Not paired with {pairs.reference}, since scored on other test tasks: {names}."))
    return blocks


def _differences(sources: Sequence[RunSource], labels: Mapping[str, str]) -> Block | None:
    rows = config_differences({labels[s.id]: s.config for s in sources})
    names = [labels[s.id] for s in sources]
    cells = [[row["key"], *("–" if row["values"][n] is None else str(row["values"][n]) for n in names)] for row in rows]
    return table("differences", "Options that differ", ["Option", *names], cells)
