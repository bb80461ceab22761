"""Figures of runs side by side: curves, headlines with intervals, differences on the same test tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from raymeta.trackers.scores import score_in, score_named
from raymeta.views.figures.style import QUIET, Row, Spec, Trace, band, figure, line, log_axis, look, text

Axis = Literal["step", "time", "tasks"]
AXIS_TITLES: dict[Axis, str] = {"step": "outer step", "time": "minutes of training", "tasks": "training tasks"}


class Curve(NamedTuple):
    """One run's values of one metric along the chosen axis."""

    label: str
    group: str
    x: list[float]
    y: list[float]


def overlay(curves: Sequence[Curve], *, metric: str, axis: Axis = "step", grouped: bool = False) -> Spec:
    """One line for each run, or for each group of seeds: their mean, and the range from lowest to highest."""
    score = score_in(metric)
    percent = score is not None and score.percent
    scale, unit = (100.0, f"{metric} in %") if percent else (1.0, metric)
    curves = [curve._replace(y=[scale * v for v in curve.y]) for curve in curves if curve.x]
    traces: list[Trace] = []
    if grouped:
        for position, name in enumerate(dict.fromkeys(curve.group for curve in curves)):
            traces += _group(name, [curve for curve in curves if curve.group == name], position)
    else:
        for position, curve in enumerate(curves):
            style = look(position)
            symbol = style.symbol if len(curve.x) <= 60 else ""
            traces.append(line(curve.label, curve.x, curve.y, style.colour, dash=style.dash, symbol=symbol))
    about = f"{unit} of each {'group of seeds: mean, and range from lowest to highest' if grouped else 'run'}."
    yaxis = {} if percent else log_axis(v for curve in curves for v in curve.y)
    title = f"{metric} by {AXIS_TITLES[axis]}"
    return figure(title, about, traces, x=AXIS_TITLES[axis], y=unit, yaxis=yaxis)


def _group(name: str, curves: Sequence[Curve], position: int) -> list[Trace]:
    style = look(position)
    at = sorted({x for curve in curves for x in curve.x})
    # Runs of a group need not be measured at the same points; outside of its own range a run says nothing.
    values = np.array([np.interp(at, c.x, c.y, left=np.nan, right=np.nan) for c in curves])
    counted = ~np.isnan(values)
    mean = np.where(counted, values, 0).sum(0) / counted.sum(0)
    label = f"{name} ({len(curves)} runs)" if len(curves) > 1 else name
    low, high = (f(values, axis=0).tolist() for f in (np.nanmin, np.nanmax))
    area = band(at, low, high, style.colour, text(label)) if len(curves) > 1 else []
    return [*area, line(label, at, mean.tolist(), style.colour, dash=style.dash, legendgroup=text(label))]


def headlines(rows: Sequence[Row]) -> Spec:
    """Each run's test score with its 95 % interval; rows are {label, value, ci95, name}."""
    kinds = {score_named(str(row["name"])) for row in rows}
    scale, unit = next((kind.scale, kind.unit) for kind in kinds) if len(kinds) == 1 else (1.0, "score")
    dots = _dots([(row["label"], scale * row["value"], scale * row["ci95"]) for row in rows])
    about = "Test score of each run; the bar is the 95 % interval of the mean over test tasks."
    return _forest("Test scores", about, dots, unit, len(rows))


def differences(rows: Sequence[Row], *, reference: str, score: str) -> Spec:
    """Paired differences to the run `reference` on the same test tasks; rows are {label, difference, ci95}."""
    kind = score_named(score)
    scale, unit = kind.scale, f"{kind.title}, percentage points" if kind.percent else kind.title
    dots = _dots([(row["label"], scale * row["difference"], scale * row["ci95"]) for row in rows])
    about = (
        f"Mean difference to {text(reference)} over the same test tasks, paired task by task, with its 95 % interval. "
        "An interval that leaves out zero is a difference beyond chance."
    )
    zero = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0}
    chart = _forest("Paired differences", about, dots, f"difference in {unit}", len(rows))
    chart["layout"]["shapes"] = [zero | {"line": {"dash": "dot", "width": 1, "color": QUIET}}]
    return chart


def _dots(rows: Sequence[tuple[str, float, float]]) -> list[Trace]:
    traces = []
    for position, (label, value, ci95) in enumerate(rows):
        style = look(position)
        trace: Trace = {"type": "scatter", "mode": "markers", "x": [value], "y": [text(label, 40)]}
        trace |= {"name": text(label), "marker": {"color": style.colour, "symbol": style.symbol, "size": 10}}
        if np.isfinite(ci95):
            trace["error_x"] = {"type": "data", "array": [ci95], "color": style.colour, "thickness": 2}
        traces.append(trace)
    return traces


def _forest(title: str, about: str, dots: list[Trace], unit: str, count: int) -> Spec:
    return figure(
        title,
        about,
        dots,
        x=unit,
        y="",
        yaxis={"autorange": "reversed", "type": "category"},
        hovermode="closest",
        showlegend=False,
        height=110 + 34 * max(count, 1),
    )
