"""The subject: what adapting does to a score, inner step by inner step and task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raymeta.trackers.scores import score_named
from raymeta.views.figures.style import (
    AFTER,
    BEFORE,
    QUIET,
    Row,
    Spec,
    Trace,
    figure,
    line,
    look,
    score_axis,
    score_of,
)


def by_inner_step(
    curves: Mapping[str, Sequence[float]], *, score: str = "accuracy", ci95: Mapping[str, float] | None = None
) -> Spec:
    """Mean score before adapting (0) and after each inner step; one line for each name in `curves`.

    `ci95` is the half-width of the interval of the last value.
    """
    kind = score_named(score)
    scale = kind.scale
    traces = []
    for position, (name, values) in enumerate(curves.items()):
        style = look(position)
        y = [scale * v for v in values]
        error = {}
        if ci95 and name in ci95:
            widths = [0.0] * (len(y) - 1) + [scale * ci95[name]]
            error = {"error_y": {"type": "data", "array": widths, "color": style.colour, "thickness": 1.5}}
        x = list(range(len(y)))
        traces.append(line(name, x, y, style.colour, dash=style.dash, symbol=style.symbol, **error))
    unit = kind.unit
    steps = max((len(values) for values in curves.values()), default=1)
    about = f"Mean {unit} on test tasks by {kind.axis}; 0 is before adapting. The bar is the 95 % interval of the mean."
    axis = score_axis(kind, (v for y in curves.values() for v in y))
    return figure(
        f"Test score by {kind.axis}",
        about,
        traces,
        x=f"{kind.axis} (0: before adapting)",
        y=unit,
        xaxis={"dtick": max(1, steps // 10), "range": [-0.3, max(steps - 1, 1) + 0.3]},
        yaxis=axis,
        showlegend=len(traces) > 1,
    )


def validation_by_inner_step(validations: Sequence[Row]) -> Spec:
    """How the adaptation curve itself was learned: a line for early, middle and late validations."""
    kind = score_of(validations)
    scale = kind.scale
    last = len(validations) - 1
    chosen = sorted({0, last // 3, 2 * last // 3, last}) if validations else []
    traces = []
    for position, index in enumerate(chosen):
        row, style = validations[index], look(position)
        y = [scale * v for v in row["per_step"]]
        colour = AFTER if index == last else style.colour if position else BEFORE
        x = list(range(len(y)))
        traces.append(
            line(f"outer step {row['step']:,}", x, y, colour, dash=DASH_BY_AGE[len(chosen) - 1 - position],
                 symbol=style.symbol)
        )  # fmt: skip
    unit = kind.unit
    about = f"Validation {unit} by {kind.axis}, for validations from early to late in training: learning to adapt."
    steps = max((len(row["per_step"]) for row in validations), default=1)
    return figure(
        "How adapting was learned",
        about,
        traces,
        x=f"{kind.axis} (0: before adapting)",
        y=unit,
        xaxis={"dtick": max(1, steps // 10), "range": [-0.3, max(steps - 1, 1) + 0.3]},
        yaxis=score_axis(kind, (v for r in validations for v in r["per_step"])),
    )


DASH_BY_AGE = ("solid", "dash", "dashdot", "dot")


def spread(values: Sequence[float], *, score: str = "accuracy", before: float | None = None) -> Spec:
    """How the score after adapting is spread over test tasks, with the means before and after adapting."""
    kind = score_named(score)
    scale, unit = kind.scale, kind.unit
    x = [scale * v for v in values]
    bars: Trace = {"type": "histogram", "x": x, "name": "test tasks", "marker": {"color": AFTER, "opacity": 0.75}}
    bars["nbinsx"] = 30
    marks = [("mean after", sum(x) / max(len(x), 1), AFTER, "solid")]
    if before is not None:
        marks.append(("mean before", scale * before, QUIET, "dash"))
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
    about = f"Number of test tasks by {unit} after adapting; lines mark the means before and after adapting."
    return figure(
        "Spread over test tasks",
        about,
        [bars],
        x=f"{unit}, after adapting",
        y="tasks",
        shapes=shapes,
        annotations=notes,
        hovermode="x",
        showlegend=False,
        bargap=0.05,
    )
