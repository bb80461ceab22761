"""How fast each path computes the same meta-gradients: ours, other libraries, and the floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from raymeta.views.figures.style import COLOURS, QUIET, Spec, Trace, figure, text

Role = Literal["raymeta", "peer", "floor"]
LABEL_LETTERS = 32
LOOKS: dict[Role, tuple[str, str, str]] = {
    "raymeta": ("raymeta", COLOURS[0], ""),
    "peer": ("other libraries", COLOURS[1], "/"),
    "floor": ("floor", QUIET, "."),
}
"""Name, colour and hatching of the bars."""
ROOM_FOR_TEXT = 1.3


class Rate(NamedTuple):
    """Tasks per second of a path: the median over rounds, the least and the most, where these are known."""

    path: str
    role: Role
    median: float
    least: float | None
    most: float | None


def rates(found: Sequence[Rate]) -> Spec:
    """A bar for each path, the fastest first, with a line from its slowest to its fastest round."""
    ordered = sorted(found, key=lambda rate: rate.median, reverse=True)
    labels = {rate.path: text(rate.path, LABEL_LETTERS) for rate in ordered}
    traces = [_bars(role, [rate for rate in ordered if rate.role == role], labels) for role in LOOKS]
    return figure(
        "Meta-gradients per second",
        "Tasks per second of each path, median over rounds; the line spans the slowest and the fastest round. The "
        "floor is the plain forward and backward passes that the method needs.",
        [trace for trace in [*traces, _numbers(ordered, labels)] if trace["x"]],
        x="tasks per second",
        y="",
        xaxis={"range": [0, ROOM_FOR_TEXT * max((_end(rate) for rate in ordered), default=1.0)], "nticks": 6},
        yaxis={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": list(labels.values()),
            "autorange": "reversed",
            "showgrid": False,
        },
        barmode="overlay",
        bargap=0.35,
        hovermode="closest",
        height=130 + 32 * max(len(ordered), 1),
    )


def _bars(role: Role, found: Sequence[Rate], labels: dict[str, str]) -> Trace:
    name, colour, hatching = LOOKS[role]
    above = [0.0 if rate.most is None else rate.most - rate.median for rate in found]
    below = [0.0 if rate.least is None else rate.median - rate.least for rate in found]
    spread = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 2, "width": 5}
    pattern = {"shape": hatching, "fillmode": "overlay", "size": 7, "solidity": 0.35, "fgcolor": "#ffffff"}
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": [rate.median for rate in found],
        "y": [labels[rate.path] for rate in found],
        "marker": {"color": colour, "pattern": pattern},
        "error_x": spread,  # pages draw it in the colour of their text
    }


def _numbers(found: Sequence[Rate], labels: dict[str, str]) -> Trace:
    """The medians, written behind the lines of the bars."""
    return {
        "type": "scatter",
        "mode": "text",
        "x": [_end(rate) for rate in found],
        "y": [labels[rate.path] for rate in found],
        "text": [f"  {rate.median:,.0f}" if rate.median >= 100 else f"  {rate.median:.3g}" for rate in found],
        "textposition": "middle right",
        "hoverinfo": "skip",
        "showlegend": False,
        "cliponaxis": False,
    }


def _end(rate: Rate) -> float:
    return rate.median if rate.most is None else max(rate.most, rate.median)
