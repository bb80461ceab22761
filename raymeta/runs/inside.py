"""Whether everything that would be written into a run's folder stays there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from raymeta.errors import EnvironmentProblem


def require_no_way_out(directory: Path) -> None:
    """Raise `EnvironmentProblem` for links that lead out of a run, and for pipes and devices in it.

    What is written into a run's folder would land elsewhere, where whoever made the folder wants it.
    """
    root = directory.resolve()
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder) / name
            if path.is_symlink():
                _require_inside(path, root)
            elif not (stat.S_ISREG(mode := path.lstat().st_mode) or stat.S_ISDIR(mode)):
                raise EnvironmentProblem(f"{path} is neither a file nor a folder: remove it, as no run has such things")


def _require_inside(link: Path, root: Path) -> None:
    try:
        target = link.resolve()
    except (OSError, RuntimeError) as error:  # a loop
        raise EnvironmentProblem(f"{link} is a link to nowhere: remove it") from error
    if not target.is_relative_to(root):
        raise EnvironmentProblem(
            f"{link} leads out of the run, to {target}, where this would write: put the folder itself in its place, or "
            "add --trust if you made the link"
        )
