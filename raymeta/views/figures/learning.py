"""Learning curves: losses, scores before and after adapting, gradient norm and speed over outer steps."""

from __future__ import annotations

from collections.abc import Sequence

from raymeta.trackers.axes import Axis
from raymeta.trackers.names import (
    ARCHITECTURE,
    AUGMENTATION,
    OPERATION_SHARES,
    OPERATION_USES,
    TRAIN_QUERY_ACCURACY,
    TRAIN_QUERY_LOSS,
    TRAIN_SUPPORT_LOSS,
)
from raymeta.trackers.scores import score_in
from raymeta.views.figures.style import (
    AFTER,
    BEFORE,
    COLOURS,
    MARGIN,
    QUIET,
    Row,
    Spec,
    Trace,
    band,
    faded,
    figure,
    line,
    log_axis,
    score_axis,
    score_of,
)

SMOOTH_OVER = 40
"""A smoothed line is an exponential average over about one such part of the curve."""


def losses(rows: Sequence[Row], axis: Axis | None = None) -> Spec:
    """Query and support loss of training, as computed (faint) and smoothed; of a method that adapts along `axis`."""
    after, before = ("", "") if axis is None else (f", {axis.after}", f", {axis.before}")
    traces = [
        *_smoothed(rows, TRAIN_QUERY_LOSS, f"query loss{after}", AFTER, "solid"),
        *_smoothed(rows, TRAIN_SUPPORT_LOSS, f"support loss{before}", COLOURS[1], "dash"),
    ]
    values = [v for row in rows for v in (row.get(TRAIN_QUERY_LOSS), row.get(TRAIN_SUPPORT_LOSS))]
    about = "Training loss by outer step. The query loss is what the outer step lowers"
    if any(row.get(TRAIN_SUPPORT_LOSS) is not None for row in rows):
        about += "; the support loss is the inner loss on the support set at first, in the inner loop's own scale"
    about += ". Bold lines are smoothed."
    return figure("Loss in training", about, traces, x="outer step", y="loss", yaxis=log_axis(values))


def scores(
    rows: Sequence[Row], validations: Sequence[Row], *, chance: float | None = None, axis: Axis | None = None
) -> Spec:
    """Validation score with its 95 % interval, before and after along an `axis`, and the accuracy on training tasks."""
    score = score_of(validations)
    scale, unit = score.scale, score.unit
    x = [row["step"] for row in validations]
    after = [scale * row["value"] for row in validations]
    ci95 = [scale * row["ci95"] for row in validations]
    before = [scale * row["per_step"][0] for row in validations]
    traces: list[Trace] = []
    if score_in(TRAIN_QUERY_ACCURACY) == score:
        traces += _smoothed(rows, TRAIN_QUERY_ACCURACY, "training tasks", COLOURS[1], "dot", scale=scale)
    if validations:
        low, high = ([m + sign * c for m, c in zip(after, ci95, strict=True)] for sign in (-1, 1))
        name = "validation tasks" if axis is None else axis.after
        traces += band(x, low, high, AFTER, name)
        traces.append(line(name, x, after, AFTER, symbol="circle", legendgroup=name))
        if axis is not None:
            traces.append(line(axis.before, x, before, BEFORE, dash="dash", symbol="square"))
    both = "" if axis is None else f" {axis.both}"
    about = f"Validation {unit} by outer step{both and ','}{both}, with the 95 % interval of the mean."
    title = f"{score.title.capitalize()}{both or ' on validation tasks'}"
    if not validations:
        title = f"{score.title.capitalize()} on training tasks"
        about = f"{title}, in the batches of training, by outer step. Nothing was validated."
    yaxis = score_axis(score, [*after, *before])
    chart = figure(title, about, traces, x="outer step", y=unit, yaxis=yaxis, showlegend=True)
    if chance and score.percent:
        chart["layout"] |= _chance(chance)
    return chart


def _chance(chance: float) -> Row:
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 100 * chance, "y1": 100 * chance}
    note = {"xref": "paper", "x": 1, "y": 100 * chance, "text": "chance", "showarrow": False, "xanchor": "left"}
    shape["line"] = {"color": QUIET, "dash": "dot", "width": 1}
    outside = note | {"yanchor": "middle", "font": {"size": 11}}  # where it covers no point
    return {"shapes": [shape], "annotations": [outside], "margin": MARGIN | {"r": 52}}


def optimisation(rows: Sequence[Row]) -> Spec:
    """Norm of the meta-gradient and the outer learning rate."""
    traces = [
        *_smoothed(rows, "outer/grad_norm", "norm of the meta-gradient", COLOURS[3], "solid"),
        *_smoothed(rows, "outer/lr", "outer learning rate", COLOURS[2], "dash", plain=True),
    ]
    return figure(
        "Meta-gradient and outer rate",
        "Norm of the averaged meta-gradient, faint as computed and bold smoothed, and the outer learning rate.",
        traces,
        x="outer step",
        y="norm, rate",
        yaxis=log_axis(v for row in rows for v in (row.get("outer/grad_norm"), row.get("outer/lr"))),
    )


def architecture(rows: Sequence[Row]) -> Spec:
    """How much each operation weighs in an architecture that is searched."""
    traces: list[Trace] = []
    for name, colour in zip(OPERATION_SHARES, COLOURS, strict=True):
        traces += _smoothed(rows, name, name.removeprefix(ARCHITECTURE), colour, "solid")
    about = (
        "Weight of each operation, the mean over all edges: of the mixture that is learned, or among the architectures "
        "that a controller draws. Bold lines are smoothed."
    )
    axis = {"rangemode": "tozero"}
    return figure("Architecture", about, traces, x="outer step", y="mean weight", yaxis=axis, showlegend=True)


def augmentation(rows: Sequence[Row]) -> Spec:
    """How many training images each operation changes, of a policy that is learned."""
    traces: list[Trace] = []
    for name, colour in zip(OPERATION_USES, COLOURS, strict=True):
        traces += _smoothed(rows, name, name.removeprefix(AUGMENTATION), colour, "solid", scale=100)
    about = "How likely a training image is changed by each operation, whatever its strength. Bold lines are smoothed."
    axis = {"rangemode": "tozero"}
    return figure("Policy", about, traces, x="outer step", y="images in %", yaxis=axis, showlegend=True)


def speed(rows: Sequence[Row]) -> Spec:
    """Tasks per second over outer steps."""
    traces = _smoothed(rows, "tasks_per_s", "tasks per second", COLOURS[6], "solid")
    about = "Training tasks adapted per second, all workers together; validation is not counted."
    axis = {"rangemode": "tozero"}
    return figure("Speed", about, traces, x="outer step", y="tasks per second", yaxis=axis)


def smooth(values: Sequence[float], over: float) -> list[float]:
    """Exponential average over about `over` values, right from the first one on (bias-corrected)."""
    keep, mean, weight = 1 - 1 / max(over, 1.0), 0.0, 0.0
    result = []
    for value in values:
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        result.append(mean / weight)
    return result


def _smoothed(
    rows: Sequence[Row], key: str, name: str, colour: str, dash: str, *, scale: float = 1.0, plain: bool = False
) -> list[Trace]:
    found = [(row["step"], scale * row[key]) for row in rows if isinstance(row.get(key), int | float)]
    if not found:
        return []
    x, y = zip(*found, strict=True)
    over = len(y) / SMOOTH_OVER
    if plain or over < 2:
        return [line(name, x, y, colour, dash=dash, legendgroup=name)]
    drawn = [v for v in y if v == v and abs(v) != float("inf")]
    whole = len(drawn) == len(y)
    raw = line(f"{name}, each step", x, y, faded(colour, 0.3), legendgroup=name, showlegend=False, hoverinfo="skip")
    raw["line"]["width"] = 1
    if not whole:  # an average over NaN would hide where it began
        return [line(name, x, y, colour, dash=dash, legendgroup=name)]
    return [raw, line(name, x, smooth(y, over), colour, dash=dash, legendgroup=name)]
