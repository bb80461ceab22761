"""One test task: how each inner step changed what the model says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raymeta.trackers.axes import AXES, INNER_STEP
from raymeta.views.figures.style import AFTER, BEFORE, COLOURS, Row, Spec, Trace, band, figure, line

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def class_name(index: int) -> str:
    """A, B, ..., Z, then numbers: short names of the classes of a task."""
    return LETTERS[index] if index < len(LETTERS) else str(index + 1)


def fit(episode: Row) -> Spec:
    """A regression task with one input and one output: support points, truth, and the fit after each inner step."""
    x, truth = (
        np.asarray(episode[key], float).reshape(len(episode["query_x"]), -1)[:, 0] for key in ("query_x", "query_y")
    )
    order = np.argsort(x)
    fits = np.asarray(episode["predicted"], float).reshape(len(episode["predicted"]), len(x), -1)[:, order, 0]
    support = [np.asarray(episode[key], float).reshape(-1) for key in ("support_x", "support_y")]
    at = x[order].tolist()
    traces: list[Trace] = _spread(episode, at, fits[-1], order)
    traces.append(line("truth", at, truth[order].tolist(), BEFORE, dash="dot"))
    last = len(fits) - 1
    for step, values in enumerate(fits):
        name = "before adapting" if step == 0 else AXES[INNER_STEP].end(step + 1)
        if last == 0:  # a method without inner steps
            name = "the model's fit"
        colour, dash = (COLOURS[1], "dash") if step == 0 < last else (AFTER, "solid")
        shown = step in (0, last)
        trace = line(name, at, values.tolist(), colour, dash=dash, visible=True if shown else "legendonly")
        traces.append(trace | {"meta": {"inner_step": step}, "showlegend": shown})
    points: Trace = {"type": "scatter", "mode": "markers", "name": "support points"}
    points |= {"x": support[0].tolist(), "y": support[1].tolist()}
    points["marker"] = {"size": 10, "symbol": "x", "color": COLOURS[4]}
    traces.append(points)
    when = " before and after adapting to them" if last else ""
    about = f"The task's true function, its support points, and the model's fit{when}."
    if "deviation" in episode:
        about += " The band is two standard deviations of the prediction to each side."
    return figure("Fit", about, traces, x="x", y="y", hovermode="closest")


def _spread(episode: Row, at: list[float], fit: np.ndarray, order: np.ndarray) -> list[Trace]:
    """The band of two standard deviations around the last fit; nothing without them."""
    if "deviation" not in episode:
        return []
    twice = 2 * np.asarray(episode["deviation"][-1], float).reshape(len(at), -1)[order, 0]
    return band(at, (fit - twice).tolist(), (fit + twice).tolist(), AFTER, "prediction")


def accuracy_by_step(episode: Row) -> list[float]:
    """Share of right queries before and after each inner step."""
    right = np.asarray(episode["predicted"]) == np.asarray(episode["query_y"])[None]
    return [float(v) for v in right.mean(1)]


def error_by_step(episode: Row) -> list[float]:
    """Mean squared error over the queries before and after each inner step."""
    predicted = np.asarray(episode["predicted"], float)
    truth = np.asarray(episode["query_y"], float)
    return [float(v) for v in ((predicted - truth[None]) ** 2).reshape(len(predicted), -1).mean(1)]


def score_by_step(episode: Row) -> list[float]:
    """Accuracy where the episode has probabilities, else squared error."""
    return accuracy_by_step(episode) if "probabilities" in episode else error_by_step(episode)


def is_fit(episode: Row) -> bool:
    """Whether the episode is a regression from one number to one number, which can be drawn as a curve."""
    shapes = [np.shape(episode.get(key, ())) for key in ("query_x", "query_y")]
    return "probabilities" not in episode and all(len(s) == 2 and s[1] == 1 for s in shapes)


def sheet(episode: Row, queries: Sequence[int] | None = None) -> Spec:
    """Confidence in the true class: a row for each query, a column for each inner step."""
    probabilities = np.asarray(episode["probabilities"], float)
    chosen = list(range(probabilities.shape[1])) if queries is None else list(queries)
    truth = [int(episode["query_y"][q]) for q in chosen]
    z = [[100 * float(p[q, t]) for p in probabilities] for q, t in zip(chosen, truth, strict=True)]
    heat: Trace = {"type": "heatmap", "z": z, "x": list(range(len(probabilities))), "colorscale": "Viridis"}
    heat |= {"y": [f"{class_name(t)} · query {q + 1}" for q, t in zip(chosen, truth, strict=True)]}
    heat |= {"zmin": 0, "zmax": 100, "colorbar": {"title": {"text": "%"}, "thickness": 12}}
    about = "Confidence in the true class of each query, in per cent, by inner step."
    return figure(
        "Confidence in the true class",
        about,
        [heat],
        x=AXES[INNER_STEP].title,
        y="",
        xaxis={"dtick": max(1, len(probabilities) // 10)},
        yaxis={"autorange": "reversed", "dtick": 1},
        hovermode="closest",
        height=max(320, 60 + 16 * len(chosen)),
    )
