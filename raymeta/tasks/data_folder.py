"""Where data lie: the folder that was given, or the default one."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

Folder = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, PurePath) else value),
    AfterValidator(lambda value: str(Path(value).expanduser().absolute())),
]
"""A folder in the configuration: text, or a `Path` in Python; absolute, since workers and resumed runs may start in
another directory."""


def data_folder(root: str | None, name: str) -> Path:
    """`root`, or where data called `name` lies by default: `$RAYMETA_DATA/name`, else `~/.cache/raymeta/name`."""
    if root is not None:
        return Path(root).expanduser()
    return Path(os.environ.get("RAYMETA_DATA", "~/.cache/raymeta")).expanduser() / name
