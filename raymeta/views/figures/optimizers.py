"""A learned optimiser beside the ones that people choose a rate for."""

from __future__ import annotations

from raymeta.views.figures.style import Row, Spec, figure, is_number, line, log_scale, look

TITLES = {"sgd": "SGD", "momentum": "SGD with momentum", "rmsprop": "RMSProp", "adam": "Adam"}


def optimizer_curves(curves: Row) -> Spec:
    """The mean loss of each optimiser by step, on a logarithmic axis where all of them are positive."""
    losses, rates = curves["losses"], curves["rates"]
    traces = []
    for position, (name, values) in enumerate(losses.items()):
        style, rate = look(position), rates.get(name)
        label = f"{name}, learned" if rate is None else f"{TITLES.get(name, name)}, rate {rate:.3g}"
        traces.append(line(label, range(len(values)), values, style.colour, dash=style.dash))
    about = (
        f"Mean loss over {curves['problems']} test problems by step of an unroll, of the learned optimiser and of "
        "others at the constant rate that ended lowest on validation problems: from the same starts, with the same "
        "batches."
    )
    drawn = [v for values in losses.values() for v in values if is_number(v)]
    axis = log_scale(drawn) if drawn and min(drawn) > 0 else {}
    title = "Beside tuned optimisers"
    return figure(title, about, traces, x="step of the unroll", y="mean loss", yaxis=axis, showlegend=True)
