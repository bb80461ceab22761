"""The subject: what adapting does to a score, inner step by inner step and task by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from raymeta.trackers.axes import AXES, INNER_STEP, Axis
from raymeta.trackers.scores import score_named
from raymeta.views.figures.style import (
    AFTER,
    BEFORE,
    QUIET,
    Row,
    Spec,
    Trace,
    band,
    figure,
    line,
    look,
    score_axis,
    score_of,
    text,
)

MOST_SYMBOLS = 30


class Course(NamedTuple):
    """A method's mean scores along an axis; a single one where it takes no inner steps."""

    label: str
    values: Sequence[float]
    ci95: Sequence[float] = ()
    """half-widths of the 95 % intervals, one for each value, or the last one's alone"""
    place: int = 0
    """of the method among others, which decides its look"""


def by_inner_step(courses: Sequence[Course], *, score: str = "accuracy", axis: Axis = AXES[INNER_STEP]) -> Spec:
    """Mean score at each place of `axis`, with its interval; a method without inner steps is a level line."""
    kind = score_named(score)
    most = max((len(course.values) for course in courses), default=1)
    traces = [trace for course in courses for trace in _course(course, kind.scale, axis.numbers(most))]
    about = f"Mean {kind.unit} on test tasks by {axis.place}, with the 95 % interval of the mean."
    if any(len(course.values) == 1 for course in courses) and most > 1:
        about += " A level line is a method that takes no inner step."
    return figure(
        f"Test score by {axis.place}",
        about,
        traces,
        x=axis.title,
        y=kind.unit,
        xaxis=_places(axis, most),
        yaxis=score_axis(kind, (v for course in courses for v in course.values)),
        showlegend=len(courses) > 1,
    )


def _course(course: Course, scale: float, numbers: Sequence[int]) -> list[Trace]:
    style, label = look(course.place), course.label
    y = [scale * v for v in course.values]
    widths = [scale * c for c in course.ci95]
    if len(y) == 1:
        y, widths, label = y * len(numbers), widths * len(numbers), f"{label} (no inner steps)"
    x = list(numbers[: len(y)])
    shown: Trace = {"legendgroup": text(label)}
    area = []
    if len(widths) == len(y) > 1:
        low, high = ([v + sign * w for v, w in zip(y, widths, strict=True)] for sign in (-1, 1))
        area = band(x, low, high, style.colour, text(label))
    elif widths:
        bars = [0.0] * (len(y) - 1) + widths[-1:]
        shown["error_y"] = {"type": "data", "array": bars, "color": style.colour, "thickness": 1.5}
    return [*area, line(label, x, y, style.colour, dash=style.dash, symbol=_symbol(style.symbol, y), **shown)]


def _symbol(symbol: str, values: Sequence[float]) -> str:
    """Symbols where they do not run into one another."""
    return symbol if len(values) <= MOST_SYMBOLS else ""


def _places(axis: Axis, count: int) -> dict[str, Any]:
    """An axis of a figure with a tick for each place, of many for some."""
    return {"dtick": max(1, count // 10), "range": [axis.first - 0.3, axis.first + max(count - 1, 1) + 0.3]}


def validation_by_inner_step(validations: Sequence[Row], *, axis: Axis = AXES[INNER_STEP]) -> Spec:
    """How the adaptation curve itself was learned: a line for early, middle and late validations."""
    kind = score_of(validations)
    last = len(validations) - 1
    chosen = sorted({0, last // 3, 2 * last // 3, last}) if validations else []
    traces = []
    for position, index in enumerate(chosen):
        row, style = validations[index], look(position)
        y = [kind.scale * v for v in row["per_step"]]
        colour = AFTER if index == last else style.colour if position else BEFORE
        dash = DASH_BY_AGE[len(chosen) - 1 - position]
        x = axis.numbers(len(y))
        traces.append(line(f"outer step {row['step']:,}", x, y, colour, dash=dash, symbol=_symbol(style.symbol, y)))
    about = (
        f"Validation {kind.unit} by {axis.place}, for validations from early to late in training: learning to adapt."
    )
    return figure(
        "How adapting was learned",
        about,
        traces,
        x=axis.title,
        y=kind.unit,
        xaxis=_places(axis, max((len(row["per_step"]) for row in validations), default=1)),
        yaxis=score_axis(kind, (v for r in validations for v in r["per_step"])),
    )


DASH_BY_AGE = ("solid", "dash", "dashdot", "dot")


def spread(
    values: Sequence[float], *, score: str = "accuracy", before: float | None = None, axis: Axis | None = None
) -> Spec:
    """How the score in the end is spread over test tasks, with its mean and, along an `axis`, that `before`."""
    kind = score_named(score)
    scale, unit = kind.scale, kind.unit
    x = [scale * v for v in values]
    bars: Trace = {"type": "histogram", "x": x, "name": "test tasks", "marker": {"color": AFTER, "opacity": 0.75}}
    bars["nbinsx"] = 30
    first, last = ("before", "after") if axis is None or axis.first == 0 else ("first", "last")
    marks = [("mean" if axis is None else f"mean {last}", sum(x) / max(len(x), 1), AFTER, "solid")]
    if before is not None and axis is not None:
        marks.append((f"mean {first}", scale * before, QUIET, "dash"))
    shapes = [
        {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": at, "x1": at, "line": {"color": c, "dash": dash}}
        for _, at, c, dash in marks
    ]
    notes = [
        {"x": at, "y": 1, "yref": "paper", "yanchor": "bottom", "text": f"{name} {at:.3g}", "showarrow": False}
        for name, at, _, _ in marks
    ]
    if len(marks) == 2:  # two close means must not write over each other
        left = marks[1][1] <= marks[0][1]
        notes[0]["xanchor"], notes[1]["xanchor"] = ("left", "right") if left else ("right", "left")
    when = "" if axis is None else f" {axis.after}"
    means = "the line marks the mean" if axis is None else f"lines mark the means {axis.both}"
    about = f"Number of test tasks by {unit}{when}; {means}."
    return figure(
        "Spread over test tasks",
        about,
        [bars],
        x=f"{unit}{when}",
        y="tasks",
        shapes=shapes,
        annotations=notes,
        hovermode="x",
        showlegend=False,
        bargap=0.05,
    )
