"""A run's folder from its mirror: whole for a run that goes on here, or a copy to look at."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from raymeta.errors import DataError
from raymeta.runs import layout
from raymeta.system.files import write_problem
from raymeta.system.remote import Remote

CHECKPOINTS = f"{layout.CHECKPOINTS}/"


def checkpoint_of(name: str) -> str | None:
    """The folder `checkpoints/step-...` that a file's name begins with, or None."""
    parts = name.split("/")
    return "/".join(parts[:2]) if name.startswith(CHECKPOINTS) and len(parts) > 2 else None


def fetch(remote: Remote, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Copy the wanted files of a run into `folder`, each with the time it has in the store.

    Of checkpoints only whole ones are copied, those with a `state.json`. Raises `EnvironmentProblem`.
    """
    entries = remote.files()
    for name, entry in sorted(entries.items()):
        step = checkpoint_of(name)
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise DataError(f"{remote} holds {name!r}, which would be written outside of the run's folder: delete it")
        if not wanted(name) or (step is not None and f"{step}/{layout.STATE}" not in entries):
            continue
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remote.download(name, target)
            os.utime(target, (entry.time, entry.time))  # a heartbeat of then is none of now
        except OSError as error:
            raise write_problem(target, error) from error


def copy_to_look_at(remote: Remote, wanted: Callable[[str], bool]) -> Path:
    """A folder with the wanted files of a run, which is deleted when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="raymeta-")) / remote.name
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    folder.mkdir()
    fetch(remote, folder, wanted)
    return folder


def restore(remote: Remote, output: Path) -> tuple[Path, list[str]]:
    """Make `output/RUN` from the mirror alone, to go on with the run here; returns it and what a person should know.

    A folder that is there already is kept where its checkpoints are as new as the mirror's, else moved aside.
    Raises `DataError` where there is no run, `EnvironmentProblem` where store or disk do not allow it.
    """
    if remote.read(layout.RUN) is None:
        raise DataError(f"{remote} holds no run; raymeta runs ls {remote.parent} lists those beside it")
    target = output / remote.name
    notes = []
    if target.exists():
        here, there = last_checkpoint(target), last_checkpoint(remote)
        if here >= there:
            return target, [f"{target} is here already and as new as its mirror {remote}: it goes on"]
        aside = target.with_name(f"{target.name}_replaced_{secrets.token_hex(2)}")
        notes.append(f"{target} was older ({here or 'no checkpoint'}) than its mirror ({there}) and is now {aside}")
    partial = output / f".{remote.name}.{secrets.token_hex(3)}.fetch"
    try:
        partial.mkdir(parents=True)
        fetch(remote, partial)
        if notes:
            target.rename(aside)
        partial.rename(target)
    except OSError as error:
        raise write_problem(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target, [*notes, f"restored from {remote}, with {last_checkpoint(target) or 'no checkpoint'}"]


def last_checkpoint(place: Path | Remote) -> str:
    """Name of the newest whole checkpoint of a run; empty without any. Names sort as steps do."""
    if isinstance(place, Path):
        names = [path.parent.name for path in place.glob(f"{CHECKPOINTS}step-*/{layout.STATE}")]
    else:
        names = [
            name.split("/")[1] for name in place.files() if checkpoint_of(name) and name.endswith(f"/{layout.STATE}")
        ]
    return max(names, default="")
