"""Figures and facts as a notebook shows them: Plotly figures, and HTML without scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raymeta.errors import EnvironmentProblem

if TYPE_CHECKING:
    import plotly.graph_objects as go


def figure_of(spec: dict[str, Any]) -> go.Figure:
    """A specification as a Plotly figure with its title. Raises `EnvironmentProblem` without plotly."""
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise EnvironmentProblem("figures need plotly: pip install 'raymeta[dashboard]'") from error
    layout = {**spec["layout"], "title": {"text": spec["layout"]["meta"]["title"]}}
    layout["margin"] = {**layout["margin"], "t": 90}
    return go.Figure({"data": spec["data"], "layout": layout})


def notebook_html(page: dict[str, Any], figures: Sequence[str], sheets: Sequence[str] = ()) -> str:
    """A page's facts as HTML that needs no script, pictures as data addresses, and the names of the figures."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(fact['label'])}</th>"
        f"<td style='text-align:left'>{html.escape(fact['value'])} <small>{html.escape(fact['hint'])}</small></td></tr>"
        for fact in page["facts"]
    )
    pictures = "".join(
        f"<figure><img src='{html.escape(sheet)}' alt='The worst test task: support left, queries right'>"
        "<figcaption>The worst test task: a row for each class, support left, queries right.</figcaption></figure>"
        for sheet in sheets
    )
    title = " · ".join(html.escape(str(part)) for part in (page["title"], page["status"], page["id"]) if part)
    names = ", ".join(f"<code>{html.escape(name)}</code>" for name in figures)
    return f"<b>{title}</b><table>{rows}</table>{pictures}<p>.figures() has {names}.</p>"
