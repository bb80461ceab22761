"""Figures of runs side by side: curves, headlines with intervals, differences on the same test tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from raymeta.trackers.scores import score_in, score_named
from raymeta.views.figures.style import QUIET, Row, Spec, Trace, band, figure, line, log_axis, look, text

Along = Literal["step", "time", "tasks"]
AXIS_TITLES: dict[Along, str] = {"step": "outer step", "time": "minutes of training", "tasks": "training tasks"}


class Curve(NamedTuple):
    """One run's values of one metric along the chosen axis."""

    label: str
    group: str
    x: list[float]
    y: list[float]
    ci95: list[float] = []  # half-widths of the 95 % intervals, where they are known
    place: int | None = None  # of the run among all that are compared, which decides its look in every figure


def overlay(curves: Sequence[Curve], *, metric: str, axis: Along = "step", grouped: bool = False) -> Spec:
    """One line for each run, or for each group of seeds: their mean, and the range from lowest to highest."""
    score = score_in(metric)
    percent = score is not None and score.percent
    scale, unit = (100.0, f"{metric} in %") if percent else (1.0, metric)
    curves = [
        curve._replace(
            y=[scale * v for v in curve.y],
            ci95=[scale * c for c in curve.ci95],
            place=position if curve.place is None else curve.place,
        )
        for position, curve in enumerate(curves)
        if curve.x
    ]
    traces: list[Trace] = []
    if grouped:
        for name in dict.fromkeys(curve.group for curve in curves):
            group = [curve for curve in curves if curve.group == name]
            traces += _group(name, group, group[0].place or 0)  # the look of its first run
    else:
        traces += [trace for curve in curves for trace in _curve(curve)]
    has_bands = any(curve.ci95 for curve in curves)
    of_run = "run, with its 95 % interval" if has_bands else "run"
    about = f"{unit} of each {'group of seeds: mean, and range from lowest to highest' if grouped else of_run}."
    yaxis = {"rangemode": "tozero"} if percent else log_axis(v for curve in curves for v in curve.y)
    title = f"{metric} by {AXIS_TITLES[axis]}"
    return figure(
        title, about, traces, x=AXIS_TITLES[axis], y=unit, xaxis={"rangemode": "tozero"}, yaxis=yaxis, showlegend=True
    )


def _curve(curve: Curve) -> list[Trace]:
    style, name = look(curve.place or 0), text(curve.label)
    symbol = style.symbol if len(curve.x) <= 60 else ""
    drawn = line(curve.label, curve.x, curve.y, style.colour, dash=style.dash, symbol=symbol, legendgroup=name)
    if len(curve.ci95) != len(curve.x):
        return [drawn]
    low, high = ([v + sign * c for v, c in zip(curve.y, curve.ci95, strict=True)] for sign in (-1, 1))
    return [*band(curve.x, low, high, style.colour, name), drawn]


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
    """Each run's test score with its 95 % interval; rows are {label, value, ci95, name, place}."""
    kinds = {score_named(str(row["name"])) for row in rows}
    scale, unit = next((kind.scale, kind.unit) for kind in kinds) if len(kinds) == 1 else (1.0, "score")
    dots = _dots([_dot(row, "value", scale) for row in rows])
    about = "Test score of each run; the bar is the 95 % interval of the mean over test tasks."
    return _forest("Test scores", about, dots, unit, len(rows))


def differences(rows: Sequence[Row], *, reference: str, score: str) -> Spec:
    """Paired differences to the run `reference` on the same test tasks; rows are {label, difference, ci95, place}."""
    kind = score_named(score)
    scale, unit = kind.scale, f"{kind.title}, percentage points" if kind.percent else kind.title
    dots = _dots([_dot(row, "difference", scale) for row in rows])
    about = (
        f"Mean difference to {text(reference)} over the same test tasks, paired task by task, with its 95 % interval. "
        "An interval that leaves out zero is a difference beyond the chance of these tasks."
    )
    zero = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0}
    chart = _forest("Paired differences", about, dots, f"difference in {unit}", len(rows))
    chart["layout"]["shapes"] = [zero | {"line": {"dash": "dot", "width": 1, "color": QUIET}}]
    return chart


def _dot(row: Row, key: str, scale: float) -> tuple[str, float, float, int]:
    return row["label"], scale * row[key], scale * row["ci95"], row["place"]


def _dots(rows: Sequence[tuple[str, float, float, int]]) -> list[Trace]:
    traces = []
    for label, value, ci95, place in rows:
        style = look(place)
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
