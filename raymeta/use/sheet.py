"""Answers as one HTML page that opens offline: pictures with what they were taken for, least sure first."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from raymeta.errors import DataError
from raymeta.tasks.images.files import UNREADABLE

if TYPE_CHECKING:
    from raymeta.use.answers import Classifier, Prediction

SIDE = 128
"""Pixels of a picture's longer side."""
MOST = 2_000
"""Answers on a page, so that it still opens."""
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem; padding: 0; }
li { border: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); border-radius: .5rem; padding: .6rem; }
li { list-style: none; overflow-wrap: anywhere; }
img { display: block; width: 100%; height: 8rem; object-fit: contain; }
meter { width: 100%; }
small { color: color-mix(in srgb, CanvasText 75%, Canvas); }
"""


def sheet_html(
    classifier: Classifier, names: Sequence[str], items: Sequence[Any], answers: Sequence[Prediction]
) -> str:
    """Raises `DataError` for more answers than a page can show."""
    if len(answers) > MOST:
        raise DataError(f"a sheet shows at most {MOST:,} answers, and there are {len(answers):,}: give fewer files")
    order = sorted(range(len(answers)), key=lambda place: answers[place].probability)
    cells = "\n".join(_cell(names[place], items[place], answers[place]) for place in order)
    title = f"{len(answers)} answers of {classifier.model.name}"
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body><main><h1>{html.escape(title)}</h1>"
        f"<p>Classes: {html.escape(', '.join(classifier.classes))}. The least sure answers come first.</p>\n"
        f"<ul>\n{cells}\n</ul></main></body></html>\n"
    )


def _cell(name: str, item: Any, answer: Prediction) -> str:
    percent = f"{100 * answer.probability:.1f} %"
    others = ", ".join(f"{label} {100 * p:.1f} %" for label, p in answer.alternatives[:2])
    meter = f'<meter min="0" max="1" value="{answer.probability:.4f}" aria-label="confidence {percent}"></meter>'
    return (
        f"<li>{_picture(name, item)}<strong>{html.escape(answer.label)}</strong> {percent}{meter}"
        f"<small>{html.escape(others)}<br>{html.escape(name)}</small></li>"
    )


def _picture(name: str, item: Any) -> str:
    if not isinstance(item, Path):
        return ""
    try:
        with Image.open(item) as image:
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
    except UNREADABLE as error:
        raise DataError(f"{item} cannot be read: {error}") from error
    out = io.BytesIO()
    small.save(out, "PNG")
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'
