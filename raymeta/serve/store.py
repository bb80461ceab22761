"""The classifiers of a service as folders, one for each: complete or absent, whoever writes and whatever dies.

STORE/0f3a…/   as `raymeta adapt` writes it, so that `raymeta predict` reads it, too
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from raymeta.errors import DataError, EnvironmentProblem
from raymeta.system.files import require_writable
from raymeta.use.adapted import Adapted
from raymeta.use.folder import adapted_facts, is_adapted_folder, read_adapted, write_adapted

ID = re.compile(r"[0-9a-f]{16}")
LEFT_OVER_S = 3_600.0
"""Age from which on the hidden folder of a write or a removal that never ended is removed."""


class Store:
    """Replicas share it: every change is one renaming, and ids are drawn at random."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, and remove what was left over. Raises `EnvironmentProblem` where it cannot be written."""
        if self.folder.exists() and not self.folder.is_dir():
            raise EnvironmentProblem(f"--store {self.folder} is a file: name a folder")
        require_writable(self.folder)
        for path in self.folder.glob(".*"):
            if path.is_dir() and time.time() - path.stat().st_mtime > LEFT_OVER_S:
                shutil.rmtree(path, ignore_errors=True)

    def new_id(self) -> str:
        return secrets.token_hex(8)

    def ids(self) -> list[str]:
        """Of complete classifiers, in the order of their ids."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if self.has(name))

    def has(self, name: str) -> bool:
        """False for anything that is no id, so that no text of a request becomes a path."""
        return ID.fullmatch(name) is not None and is_adapted_folder(self.folder / name)

    def facts(self, name: str) -> dict[str, Any]:
        """What is said of a classifier. Raises `DataError` where its folder is damaged."""
        return adapted_facts(self.folder / name)

    def write(self, name: str, adapted: Adapted) -> None:
        write_adapted(adapted, self.folder / name)

    def read(self, name: str, *, trust: bool = False) -> Adapted:
        return read_adapted(self.folder / name, trust=trust)

    def remove(self, name: str) -> bool:
        """Whether it was there; it is gone at once."""
        if not self.has(name):
            return False
        away = self.folder / f".{name}.removed-{secrets.token_hex(4)}"
        try:
            (self.folder / name).rename(away)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DataError(f"classifier {name} cannot be removed: {error.strerror}") from error
        shutil.rmtree(away, ignore_errors=True)
        return True
