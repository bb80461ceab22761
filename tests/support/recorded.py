"""Files of a run changed as its maker could have changed them: with the hash that the run has of them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from raymeta.config.yaml_lines import write
from raymeta.runs.read import Run


def rewrite(run: Run, **options: object) -> Run:
    """The run with other options outside of any section, and with its record of them; opened again."""
    text = (run.path / "config.yaml").read_text()
    for key, value in options.items():
        text, found = re.subn(rf"^{key}: .*$", lambda _: write({key: value}).strip(), text, flags=re.MULTILINE)  # noqa: B023
        assert found == 1, key
    return replace_config(run.path, text)


def replace_config(folder: Path, text: str) -> Run:
    """The run in `folder` with another configuration, which its record knows."""
    (folder / "config.yaml").write_text(text)
    info = json.loads((folder / "run.json").read_text())
    info["sha256"] = {"config.yaml": [hashlib.sha256(text.encode()).hexdigest()]}
    (folder / "run.json").write_text(json.dumps(info))
    return Run.open(folder)
