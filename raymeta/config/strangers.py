"""What a run's folder does not decide, for somebody else may have made it.

Where work happens and what is written where (options marked `OF_THE_PERSON`) comes from the person's own command line,
files and code. Import paths that stand in a run's folder are imported only if the person says that the run is trusted,
or gave the same path in this process, or trusted it there before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raymeta.errors import ConfigError
from raymeta.options import IMPORTED, marked
from raymeta.runs import layout
from raymeta.system.redact import without_secrets
from raymeta.system.their_code import texts_in

_GIVEN: set[str] = set()


def is_of_a_run(path: Path) -> bool:
    """Whether a file lies in the folder of a run or of a sweep that was begun."""
    folder = path.parent
    return (folder / layout.RUN).exists() or ((folder / layout.SWEEP).exists() and (folder / layout.RECORDS).exists())


def give(value: object) -> None:
    """Remember the import paths in something that the person gave."""
    _GIVEN.update(_that_name_code(value))


def refusal(key: str, path: object) -> str | None:
    """Why an import path in an option of a run is not imported; None for a name, or for one that the person gave."""
    unknown = [text for text in _that_name_code(path) if text not in _GIVEN]
    if not unknown:
        return None
    return (
        f"{key} {unknown[0]!r} stands in a run's folder and names code, which is imported only if you say so: if you "
        "trust whoever made the run, add --trust (in Python trust=True)"
    )


def untrusted(cls: type[Any], section: str | None, values: Mapping[str, Any]) -> list[str]:
    """Refusals of the options of `cls` that name code."""
    prefix = f"{section}." if section else ""
    found = [refusal(prefix + key, values.get(key)) for key in marked(cls, IMPORTED)]
    return [text for text in found if text]


def require_trusted(value: object, where: str) -> None:
    """Raise `ConfigError` where anything in `value` could name code that the person did not give."""
    if text := refusal(f"{where}:", list(_that_name_code(value))):
        raise ConfigError(text)


def _that_name_code(value: object) -> Iterator[str]:
    pieces = (piece.strip() for text in texts_in(value) for piece in text.split(","))  # a list may be written as a,b
    return (piece for piece in pieces if ":" in piece)


def left_to_the_person(
    content: Mapping[str, Any], otherwise: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What a run's folder says, without the options that are the person's, and by key what to tell about those.

    `otherwise` has these options, and what happens where the person says nothing.
    """
    kept = {key: value for key, value in content.items() if key not in otherwise}
    told = {key: text for key, text in otherwise.items() if content.get(key) not in (None, "results")}
    return kept, {key: _told(key, content[key], text) for key, text in told.items()}


def _told(key: str, value: object, otherwise: str) -> str:
    return without_secrets(
        f"{key} {str(value)[:200]!r} of the run's folder is not taken over, as it says where work happens or what is "
        f"written where: give --{key} again, or {otherwise}"
    )
