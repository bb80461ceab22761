"""Files of the front end; plotly.js comes from the installed plotly package, so that no other host is asked."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from raymeta.errors import EnvironmentProblem

SCRIPTS = ("dom.js", "charts.js", "tables.js", "episodes.js", "pages.js", "runs.js")
"""What dashboard and report share, in the order in which it is loaded."""
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
PLOTLY = "plotly.min.js"


@cache
def asset(name: str) -> str | None:
    """The text of a file of the front end; None if there is no file of that name."""
    if name == PLOTLY:
        return _plotly()
    names = {item.name: item for item in files("raymeta.dashboard").joinpath("static").iterdir()}
    return names[name].read_text(encoding="utf-8") if name in names else None


def _plotly() -> str:
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise EnvironmentProblem("pages need plotly for its plotly.js: pip install 'raymeta[dashboard]'")
    bundle = Path(found.origin).parent / "package_data" / PLOTLY
    try:
        return bundle.read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(f"plotly is damaged: {bundle}: {error.strerror}; install it again") from error
