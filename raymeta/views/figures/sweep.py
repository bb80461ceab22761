"""A sweep: which values of which options made a score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from raymeta.trackers.scores import score_named
from raymeta.views.figures.style import (
    AFTER,
    COLOURS,
    QUIET,
    Row,
    Spec,
    Trace,
    figure,
    finite,
    is_number,
    line,
    log_axis,
    log_scale,
    score_axis,
    text,
)

MAX_BINS = 4  # of a numeric option, when its importance is estimated
GRID = 30  # points along each side of a contour
SCALE = "Viridis"
MOST_LEVEL = 5  # names of axes side by side; more are turned


class Trials(NamedTuple):
    """Scored trials: {trial, value, config: {key: value}}, and whether more is better."""

    rows: Sequence[Row]
    keys: Sequence[str]
    higher: bool
    score: str
    logarithmic: frozenset[str] = frozenset()
    """options whose values were drawn by logarithm"""

    def axis(self, key: str) -> dict[str, Any]:
        """An axis of an option's numbers on the scale that they were drawn on, which a grid or a list does not tell."""
        values = self.column(key)
        return log_scale(values) if key in self.logarithmic and _are_positive(values) else log_axis(values)

    def column(self, key: str) -> list[Any]:
        return [row["config"].get(key) for row in self.rows]

    @property
    def values(self) -> list[float]:
        return [float(row["value"]) for row in self.rows]

    @property
    def shown(self) -> list[float]:
        """The scores as they are drawn: shares in per cent."""
        scale = score_named(self.score).scale
        return [scale * v for v in self.values]

    @property
    def unit(self) -> str:
        return score_named(self.score).unit


class Scale(NamedTuple):
    """Where values of one option lie on an axis from 0 to 1, and the ticks to write there."""

    places: list[float | None]
    ticks: list[tuple[float, str]]


def _are_positive(values: Sequence[Any]) -> bool:
    present = [v for v in values if v is not None]
    return bool(present) and all(is_number(v) and v > 0 for v in present)


def scale_of(values: Sequence[Any], *, logarithmic: bool = False) -> Scale:
    """Numbers by value, or by logarithm where asked or where they span a factor above 30; others by category."""
    present = [v for v in values if v is not None]
    if present and all(is_number(v) for v in present):
        logarithmic = (logarithmic and min(present) > 0) or bool(log_axis(present))
        numbers = [math.log10(v) if logarithmic else float(v) for v in present]
        low, high = min(numbers), max(numbers)
        width = high - low or 1.0
        places = [
            None if v is None else ((math.log10(v) if logarithmic else float(v)) - low) / width if high > low else 0.5
            for v in values
        ]
        at = [0.0, 0.5, 1.0] if high > low else [0.5]
        back = [low + p * width if high > low else low for p in at]
        return Scale(
            places,
            [(p, f"{10**b if logarithmic else b:.{2 if p == 0.5 else 3}g}") for p, b in zip(at, back, strict=True)],
        )
    names = sorted({str(v) for v in present})
    place = {name: i / (len(names) - 1) if len(names) > 1 else 0.5 for i, name in enumerate(names)}
    return Scale([None if v is None else place[str(v)] for v in values], [(p, text(n, 14)) for n, p in place.items()])


def parallel(trials: Trials) -> Spec:
    """A line for each trial through all options to its score, drawn as plain lines so that it works everywhere.

    `meta.parallel` of a trace holds its trial, for brushing.
    """
    axes = [(key, scale_of(trials.column(key), logarithmic=key in trials.logarithmic)) for key in trials.keys]
    axes.append((trials.unit, scale_of(trials.shown)))
    tint = _tints(trials)
    traces: list[Trace] = []
    for i, row in enumerate(trials.rows):
        y = [scale.places[i] for _, scale in axes]
        hover = "<br>".join(f"{text(k)}: {text(v)}" for k, v in row["config"].items())
        traces.append({
            "type": "scatter", "mode": "lines+markers", "x": list(range(len(axes))), "y": y, "connectgaps": True,
            "name": text(f"trial {row['trial']}"), "line": {"color": tint[i], "width": 1.6},
            "marker": {"color": tint[i], "size": 5}, "meta": {"trial": text(row["trial"])},
            "hovertemplate": f"{text(trials.unit)}: {trials.shown[i]:.4g}<br>{hover}<extra>%{{fullData.name}}</extra>",
        })  # fmt: skip
    shapes = [
        {"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "line": {"color": "#808090", "width": 1}}
        for i in range(len(axes))
    ]
    notes = [
        {"x": i, "y": p, "text": tick, "showarrow": False, "font": {"size": 11}, **_beside(p)}
        for i, (_, scale) in enumerate(axes)
        for p, tick in scale.ticks
    ]
    return figure(
        "All trials",
        "Each line is a trial, from its options on the left to its score on the right; the brighter, the better. "
        "Draw a box over lines to see only these trials.",
        traces,
        x="",
        y="",
        xaxis={
            "tickvals": list(range(len(axes))), "ticktext": [_in_lines(key) for key, _ in axes],
            "range": [-0.4, len(axes) - 0.6], "tickangle": 0 if len(axes) <= MOST_LEVEL else "auto",
            "showgrid": False, "side": "top", "fixedrange": True,
        },
        yaxis={"visible": False, "range": [-0.12, 1.12], "fixedrange": True},
        shapes=shapes,
        annotations=notes,
        showlegend=False,
        hovermode="closest",
        dragmode="select",
        margin={"l": 12, "r": 48, "t": 44, "b": 12},
    )  # fmt: skip


def _in_lines(key: str) -> str:
    """`algorithm.` above `inner_lr`, so that names beside one another have room."""
    return "<br>".join(text(part, 26) for part in key.replace(".", ".\n").split("\n"))


def _beside(place: float) -> Row:
    """Where the text of a tick covers no point: beyond the ends of its axis, else above its place."""
    if place == 0:
        return {"yanchor": "top", "yshift": -5}
    return {"yanchor": "bottom", "yshift": 5} | ({} if place == 1 else {"xanchor": "left", "xshift": 3, "yshift": 3})


def _tints(trials: Trials) -> list[str]:
    """From grey-violet (worst) to orange (best), readable on white and on black."""
    places = np.array([p if p is not None else 0.5 for p in scale_of(trials.values).places])
    places = places if trials.higher else 1 - places
    ends = np.array([[128, 128, 160], [43, 127, 212], [201, 106, 11]], float)
    rgb = [[np.interp(p, [0, 0.6, 1], ends[:, c]) for c in range(3)] for p in places]
    return ["rgb({:.0f},{:.0f},{:.0f})".format(*colour) for colour in rgb]


def against_score(trials: Trials, key: str) -> Spec:
    """Score over one option, a point for each trial."""
    x = trials.column(key)
    numeric = all(is_number(v) for v in x if v is not None)
    points: Trace = {"type": "scatter", "mode": "markers", "name": "trials", "y": [finite(v) for v in trials.shown]}
    points["x"] = [v if v is None or numeric else text(v, 24) for v in x]
    points["text"] = [text(f"trial {row['trial']}") for row in trials.rows]
    points["marker"] = {"size": 9, "color": AFTER, "opacity": 0.8, "line": {"width": 1, "color": "#808090"}}
    about = f"Score of each trial by {text(key)}; the other options differ too."
    axis = trials.axis(key) if numeric else {"type": "category"}
    return figure(
        f"Score by {text(key)}",
        about,
        [points],
        x=text(key),
        y=text(trials.unit),
        xaxis=axis,
        hovermode="closest",
        showlegend=False,
    )


def contour(trials: Trials, first: str, second: str) -> Spec:
    """Score over two numeric options: trials as points, and between them averages weighted by nearness."""
    rows = [
        (row["config"].get(first), row["config"].get(second), shown)
        for row, shown in zip(trials.rows, trials.shown, strict=True)
    ]
    rows = [row for row in rows if is_number(row[0]) and is_number(row[1])]
    x, y, score = (np.array(column, float) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
    axes = [trials.axis(key) for key in (first, second)]
    u, v = ((np.log10(c) if axis else c) for c, axis in zip((x, y), axes, strict=True))
    traces: list[Trace] = []
    if len(rows) >= 4 and np.ptp(u) > 0 and np.ptp(v) > 0:
        traces.append(_surface(u, v, score, axes))
    points: Trace = {"type": "scatter", "mode": "markers", "x": x.tolist(), "y": y.tolist(), "name": "trials"}
    points["marker"] = {
        "color": score.tolist(), "colorscale": SCALE, "reversescale": not trials.higher, "size": 10,
        "line": {"width": 1.5, "color": "#ffffff"},
    }  # fmt: skip
    points["text"] = [f"{s:.4g}" for s in score]
    points["hovertemplate"] = f"%{{x:.3g}}, %{{y:.3g}}: %{{text}} {text(trials.unit)}<extra></extra>"
    if traces:
        traces[0]["reversescale"] = not trials.higher
        traces[0]["colorbar"] = {"title": {"text": text(trials.unit)}, "thickness": 12}
    else:
        points["marker"] |= {"showscale": True, "colorbar": {"title": {"text": text(trials.unit)}, "thickness": 12}}
    traces.append(points)
    about = (
        f"Score over {text(first)} and {text(second)}. Points are trials; the surface between them is an average "
        "of the trials weighted by nearness, not a measurement."
    )
    return figure(
        f"{text(first)} and {text(second)}",
        about,
        traces,
        x=text(first),
        y=text(second),
        xaxis=axes[0],
        yaxis=axes[1],
        hovermode="closest",
        showlegend=False,
    )


def _surface(u: np.ndarray, v: np.ndarray, score: np.ndarray, axes: Sequence[Row]) -> Trace:
    grid = [np.linspace(c.min(), c.max(), GRID) for c in (u, v)]
    du = (grid[0][None, :, None] - u) / np.ptp(u)
    dv = (grid[1][:, None, None] - v) / np.ptp(v)
    weight = 1 / (du**2 + dv**2 + 1e-3) ** 1.5
    z = (weight * score).sum(-1) / weight.sum(-1)
    x, y = ((10**g if axis else g).tolist() for g, axis in zip(grid, axes, strict=True))
    common = {"type": "contour", "x": x, "y": y, "z": z.tolist(), "colorscale": SCALE, "opacity": 0.75}
    return common | {"name": "average of near trials", "contours": {"showlines": False}, "hoverinfo": "skip"}


def importance(trials: Trials, known: Row | None = None) -> dict[str, float]:
    """How much of the ranking of trials each option explains alone, from 0 to 1.

    `known` values, as a tuner wrote them, are taken as they are. Else: the share of the variance of the scores' ranks
    that lies between groups of equal values (numbers: up to four groups of equal size), corrected for the number of
    groups (ε², Kelley 1935). Interactions do not show.
    """
    if known:
        return {str(key): float(value) for key, value in known.items() if is_number(value)}
    ranks = np.argsort(np.argsort(trials.values)).astype(float)
    return {key: _explained(ranks, _groups(trials.column(key))) for key in trials.keys}


def _groups(values: Sequence[Any]) -> list[str]:
    numbers = [float(v) for v in values if is_number(v)]
    if len(numbers) == len(values) and len(set(numbers)) > MAX_BINS:
        edges = np.quantile(numbers, np.linspace(0, 1, MAX_BINS + 1)[1:-1])
        return [str(int(b)) for b in np.searchsorted(edges, numbers)]
    return [repr(v) for v in values]


def _explained(ranks: np.ndarray, groups: Sequence[str]) -> float:
    names = sorted(set(groups))
    n, k = len(ranks), len(names)
    total = float(((ranks - ranks.mean()) ** 2).sum()) if n else 0.0
    if k < 2 or n <= k or total == 0:
        return 0.0
    parts = [ranks[np.array([g == name for g in groups])] for name in names]
    within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    return max(0.0, 1 - (within / (n - k)) / (total / (n - 1)))


def importances(trials: Trials, known: Row | None = None) -> Spec:
    """`importance` as bars, the most important first."""
    found = sorted(importance(trials, known).items(), key=lambda item: -item[1])
    bar: Trace = {"type": "bar", "orientation": "h", "name": "importance", "marker": {"color": COLOURS[0]}}
    bar |= {"x": [v for _, v in found], "y": [text(k, 32) for k, _ in found]}
    bar |= {"text": [f"{v:.2f}" for _, v in found], "textposition": "outside", "cliponaxis": False}
    about = (
        "Importance of each option, as the tuner computed it."
        if known
        else "Share of the ranking of trials that each option explains alone; interactions do not show."
    )
    return figure(
        "Importance",
        about,
        [bar],
        x="importance",
        y="",
        xaxis={"range": [0, 1.1 * max([v for _, v in found] + [0.1])]},
        yaxis={"autorange": "reversed", "type": "category"},
        hovermode="y",
        showlegend=False,
        height=110 + 30 * max(len(found), 1),
    )


def history(trials: Trials) -> Spec:
    """Score of each trial in the order of the sweep, and the best so far."""
    best = max if trials.higher else min
    so_far: list[float] = []
    for value in trials.shown:
        so_far.append(value if not so_far else best(so_far[-1], value))
    x = list(range(1, len(so_far) + 1))
    points: Trace = {"type": "scatter", "mode": "markers", "x": x, "y": trials.shown, "name": "trials"}
    points["marker"] = {"color": COLOURS[1], "symbol": "diamond", "size": 8}
    points["text"] = [text(f"trial {row['trial']}") for row in trials.rows]
    steps: Trace = {"type": "scatter", "mode": "lines", "x": x, "y": so_far, "name": "best so far"}
    steps["line"] = {"color": AFTER, "shape": "hv", "width": 2}
    about = "Score of each trial in the order of the sweep, and the best so far."
    return figure("Progress", about, [points, steps], x="trial, in order", y=text(trials.unit), hovermode="closest")


def curves(reports: Mapping[str, Sequence[tuple[int, float]]], trials: Trials) -> Spec:
    """Validation score of each trial by outer step, in the colours of `parallel`: where it was stopped, it ends."""
    kind = score_named(trials.score)
    tints = {text(row["trial"]): tint for row, tint in zip(trials.rows, _tints(trials), strict=True)}
    traces = []
    for trial, points in reports.items():
        x, y = [step for step, _ in points], [kind.scale * score for _, score in points]
        traces.append(line(f"trial {trial}", x, y, tints.get(text(trial), QUIET), symbol="circle"))
        traces[-1]["line"]["width"] = 1.5
        traces[-1]["marker"]["size"] = 4
    about = "Validation score of each trial by outer step; the brighter, the better it ended. Short lines were stopped."
    axis = score_axis(kind, (v for trace in traces for v in trace["y"]))
    return figure(
        "Trials by outer step",
        about,
        traces,
        x="outer step",
        y=text(trials.unit),
        yaxis=axis,
        hovermode="closest",
        showlegend=False,
    )
