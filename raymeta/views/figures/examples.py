"""Examples in the plane: what a model takes for alike lies together."""

from __future__ import annotations

from collections.abc import Sequence

from raymeta.views.figures.style import Spec, Trace, figure, look


def examples_map(places: Sequence[Sequence[float]], names: Sequence[str], labels: Sequence[str]) -> Spec:
    """Points of `places` [n, 2], a colour and a symbol for each label where there are labels."""
    traces: list[Trace] = []
    for position, label in enumerate(sorted(set(labels)) or [""]):
        chosen = [place for place in range(len(names)) if not labels or labels[place] == label]
        style = look(position)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label or "examples",
                "x": [places[place][0] for place in chosen],
                "y": [places[place][1] for place in chosen],
                "text": [names[place] for place in chosen],
                "hoverinfo": "text+name",
                "marker": {"size": 9, "color": style.colour, "symbol": style.symbol},
            }
        )
    about = "Examples by what the model makes of them before any adapting; close ones are alike to it."
    return figure(f"{len(names)} examples", about, traces, x="first axis", y="second axis", hovermode="closest")
