"""Scores by the domain that was held out."""

from __future__ import annotations

from raymeta.system.text import settings_text
from raymeta.trackers.scores import score_named
from raymeta.views.figures.style import Row, Spec, Trace, figure, finite, is_number, look, score_axis, text


def by_domain(table: Row) -> Spec:
    """A line for each of a sweep's other settings, over the domains in the order of the sweep."""
    score = score_named(str(table["score"]))
    traces = [_of_row(row, table["domains"], position, score.scale) for position, row in enumerate(table["rows"])]
    about = (
        "Test score on the domain that nothing was learned from, one domain after the other held out, with 95 % "
        "intervals: over seeds where there are repeats, else over test batches."
    )
    values = [value for trace in traces for value in trace["y"]]
    yaxis = score_axis(score, values) | {"automargin": True}
    axes = {"xaxis": {"type": "category"}, "yaxis": yaxis}
    return figure("Held-out domains", about, traces, x="domain held out", y=score.unit, showlegend=True, **axes)


def _of_row(row: Row, domains: list[str], position: int, scale: float) -> Trace:
    style = look(position)
    scores = [row["scores"].get(domain, {}) for domain in domains]
    y, half = ([_scaled(score.get(key), scale) for score in scores] for key in ("mean", "ci95"))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": text(settings_text(row["config"])),
        "x": list(map(text, domains)),
        "y": y,
        "error_y": {"type": "data", "array": [h or 0 for h in half], "color": style.colour},
        "line": {"color": style.colour, "dash": style.dash},
        "marker": {"color": style.colour, "symbol": style.symbol, "size": 8},
    }


def _scaled(value: object, scale: float) -> float | None:
    return finite(scale * value) if is_number(value) else None
