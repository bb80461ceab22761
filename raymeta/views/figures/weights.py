"""How much training examples weigh, of methods that weigh them."""

from __future__ import annotations

from raymeta.views.figures.style import Row, Spec, Trace, figure, look

WRONG = {False: "right label", True: "wrong label"}


def weight_by_loss(weights: Row) -> Spec:
    """The weight of each example by its loss, those with wrong labels apart."""
    traces: list[Trace] = []
    for position, (wrong, name) in enumerate(WRONG.items()):
        rows = [row for row, other in enumerate(weights["wrong"]) if other == wrong]
        style = look(position)
        marker = {"size": 6, "color": style.colour, "symbol": style.symbol, "opacity": 0.7}
        x, y = ([weights[key][row] for row in rows] for key in ("loss", "weight"))
        if rows:
            traces.append({"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker})
    about = (
        "Some training examples after training: the weight that the method gives each in its batch, as a multiple of "
        "the mean, by its loss. 1 is plain training."
    )
    return figure("Weight by loss", about, traces, x="loss", y="weight", hovermode="closest", showlegend=True)
