"""What decides a run's result is used only as the run wrote it: hashes of its files, recorded and compared.

`state.json` and `index.json` of checkpoints carry their own hash, so that file and hash change at one instant;
`state.json` holds those of its tensors, and `run.json` those of all versions of `config.yaml` and `data.json`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from raymeta.errors import DataError
from raymeta.system.files import json_text
from raymeta.system.reading import first_line, parse_json, read_regular

_SEAL = "sha256_of_the_rest"


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """`content`, as JSON will hold it, with its own hash."""
    return {**content, _SEAL: _digest(content)}


def unsealed(content: dict[str, Any]) -> dict[str, Any]:
    """What was sealed; raises `ValueError` where it was changed since. What never had a seal passes."""
    rest = {key: value for key, value in content.items() if key != _SEAL}
    if _SEAL in content and content[_SEAL] != _digest(rest):
        raise ValueError("it was changed since it was written: its SHA-256 is not the one in it")
    return rest


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parse_json(json_text(content)), sort_keys=True).encode()).hexdigest()


def require_recorded(directory: Path, recorded: Any) -> None:
    """Raise `DataError` unless the files that decide a run's result are those whose hashes it recorded.

    `recorded`: the SHA-256 of each version of a file that the run wrote, by the file's name. Runs of old have none.
    """
    for name, hashes in recorded.items() if isinstance(recorded, dict) else ():
        path = directory / Path(str(name)).name
        try:
            found = hashlib.sha256(read_regular(path)).hexdigest()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({first_line(error)}), and it {_DECIDES}") from error
        if not isinstance(hashes, list) or found not in hashes:
            raise DataError(f"{path} was changed since the run wrote it, and it {_DECIDES}")


_DECIDES = (
    "decides the run's result: put it back from a copy. To try something else, start a new run from a copy of "
    "config.yaml with -c"
)
