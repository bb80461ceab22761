"""How figures look: colours that stand out on white and on black, told apart by dashes and symbols too."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeGuard

from raymeta.trackers.scores import OF_GOAL, Score, score_named

Spec = dict[str, Any]
"""A Plotly figure as plain data: {data, layout}."""
Trace = dict[str, Any]
Row = dict[str, Any]

# Each has a contrast of 3.5 or more to white and to the dark page (#161a22), so that one figure serves both.
COLOURS = ("#2b7fd4", "#c96a0b", "#12946b", "#a463c7", "#d1495b", "#7a7f1f", "#0f8f9c", "#8a6d5a")
BEFORE, AFTER, GOOD, BAD, QUIET = "#808090", "#2b7fd4", "#12946b", "#d1495b", "#808090"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")


MARGIN = {"l": 8, "r": 16, "t": 40, "b": 8}


class Look(NamedTuple):
    """What tells one line from the others."""

    colour: str
    dash: str
    symbol: str


def look(position: int) -> Look:
    """The look of line `position`; the first 24 all differ."""
    return Look(*(of[position % len(of)] for of in (COLOURS, DASHES, SYMBOLS)))


def text(value: object, limit: int = 60) -> str:
    """`value` for a figure's text, which plotly.js reads as a kind of HTML: a hostile name stays text."""
    plain = "".join(c if c.isprintable() else " " for c in str(value))
    return html.escape(plain if len(plain) <= limit else plain[: limit - 1] + "…", quote=False)


def faded(colour: str, alpha: float) -> str:
    """`#rrggbb` with opacity `alpha`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def figure(title: str, about: str, traces: Iterable[Trace], *, x: str, y: str, **layout: Any) -> Spec:
    """A figure with axis titles `x` and `y`; `xaxis`, `yaxis` in `layout` add to those axes."""
    axes = {
        "xaxis": {"title": {"text": x}, "automargin": True, "zeroline": False} | layout.pop("xaxis", {}),
        "yaxis": {"title": {"text": y}, "automargin": True, "zeroline": False} | layout.pop("yaxis", {}),
    }
    common: dict[str, Any] = {
        "meta": {"title": title, "about": about},
        "margin": MARGIN,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "hovermode": "x unified",
        "uirevision": title,
    }
    return {"data": list(traces), "layout": common | axes | layout}


def line(
    name: str, x: Sequence[Any], y: Sequence[Any], colour: str, *, dash: str = "solid", symbol: str = "", **more: Any
) -> Trace:
    """A line, with symbols where `symbol` names one."""
    trace: Trace = {"type": "scatter", "mode": "lines", "name": text(name), "x": list(x), "y": [finite(v) for v in y]}
    trace["line"] = {"color": colour, "dash": dash, "width": 2}
    if symbol:
        trace |= {"mode": "lines+markers", "marker": {"color": colour, "symbol": symbol, "size": 7}}
    return trace | more


def band(
    x: Sequence[Any], low: Sequence[float | None], high: Sequence[float | None], colour: str, group: str
) -> list[Trace]:
    """The area between `low` and `high`, shown and hidden with the legend group `group`."""
    common = {"type": "scatter", "mode": "lines", "x": list(x), "hoverinfo": "skip", "showlegend": False}
    common |= {"line": {"width": 0, "color": colour}, "legendgroup": group, "name": f"{group}, 95 % interval"}
    fill = {"fill": "tonexty", "fillcolor": faded(colour, 0.16)}
    return [common | {"y": [finite(v) for v in low]}, common | {"y": [finite(v) for v in high]} | fill]


def finite(value: object) -> Any:
    """A number that can be drawn, else None, which leaves a gap. Whole numbers and text stay as they are."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number (and no boolean)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def score_of(validations: Sequence[Row]) -> Score:
    """The score of a run's validations; before the first, that of most runs."""
    return score_named(str(validations[-1].get("name")) if validations else OF_GOAL["classification"])


def score_axis(score: Score, values: Iterable[object]) -> dict[str, Any]:
    """An axis from zero for shares, and for any other score as `log_axis`."""
    return {"rangemode": "tozero"} if score.percent else log_axis(values)


def log_scale(values: Iterable[object]) -> dict[str, Any]:
    """A logarithmic axis for positive values: ticks at powers of ten, and over less than two decades at 1, 2, 5."""
    numbers = [float(v) for v in values if is_number(v)]
    low, high = min(numbers), max(numbers)
    if high > 100 * low:
        return {"type": "log", "dtick": 1, "exponentformat": "power"}
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def log_axis(values: Iterable[object]) -> dict[str, Any]:
    """`type: log` for positive values that span more than a factor of 30."""
    numbers = [float(v) for v in values if is_number(v)]
    wide = bool(numbers) and min(numbers) > 0 and max(numbers) > 30 * min(numbers)
    return log_scale(numbers) if wide else {}
