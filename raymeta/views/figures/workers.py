"""Workers over time: their rates, and how often each was started again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raymeta.views.figures.style import Row, Spec, Trace, figure, line, look, text


def rates(snapshots: Sequence[Row]) -> Spec:
    """Tasks per second of each worker by outer step; a symbol marks each snapshot."""
    names = list(dict.fromkeys(str(w.get("name")) for row in snapshots for w in row.get("workers", [])))
    traces: list[Trace] = []
    for position, name in enumerate(names):
        style = look(position)
        found = [
            (row.get("step", 0), w.get("tasks_per_s"))
            for row in snapshots
            for w in row.get("workers", [])
            if str(w.get("name")) == name
        ]
        x, y = zip(*found, strict=True)
        traces.append(line(name, x, y, style.colour, dash=style.dash, symbol=style.symbol))
    return figure(
        "Rate of each worker",
        "Tasks per second of each worker, at the outer steps where it was written down.",
        traces,
        x="outer step",
        y="tasks per second",
        yaxis={"rangemode": "tozero"},
        showlegend=len(traces) > 1,
    )


def shares(snapshots: Sequence[Row]) -> Spec:
    """Tasks that each worker has computed, with its restarts in the text."""
    workers = snapshots[-1].get("workers", []) if snapshots else []
    bar: Trace = {"type": "bar", "orientation": "h", "name": "tasks", "marker": {"color": look(0).colour}}
    bar |= {"y": [text(w.get("name")) for w in workers], "x": [w.get("tasks") for w in workers]}
    bar |= {"text": [f"{w.get('restarts', 0)} restarts" for w in workers], "textposition": "auto"}
    about = "Tasks that each worker has computed since the run began, and how often it was started again."
    layout: dict[str, Any] = {"yaxis": {"autorange": "reversed"}, "hovermode": "y", "showlegend": False}
    layout["height"] = 110 + 40 * max(len(workers), 1)
    return figure("Tasks by worker", about, [bar], x="tasks", y="", **layout)
