"""The runs and sweeps of a folder. Only what stands in the listing can be asked for, by its id."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from raymeta.pages.sources import RunSource
from raymeta.pages.sweep import SweepSource

OPENED = 32
"""Runs whose rows are held in memory; of those opened longest ago they are read again."""
SWEEP_FILES = ("summary.json", "sweep.yaml", "trials.csv")


class Library:
    """What a dashboard serves. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, RunSource] = {}
        self._opened: OrderedDict[str, RunSource] = OrderedDict()
        self._sweeps: dict[str, SweepSource] = {}

    def runs(self) -> list[RunSource]:
        """The runs directly in the folder, newest first."""
        found = {path.name: path for path in folders(self.folder) if (path / "run.json").is_file()}
        self._listed = {name: self._listed.get(name) or RunSource(path, name) for name, path in found.items()}
        return sorted(self._listed.values(), key=lambda source: (source.run.created, source.id), reverse=True)

    def sweeps(self) -> list[SweepSource]:
        """The sweeps in the folder's `sweeps`, the last name first."""
        paths = [p for p in folders(self.folder / "sweeps") if any((p / name).is_file() for name in SWEEP_FILES)]
        found = {path.name: path for path in paths}
        self._sweeps = {name: self._sweeps.get(name) or SweepSource(path) for name, path in found.items()}
        return [self._sweeps[name] for name in sorted(found, reverse=True)]

    def trials(self, sweep: SweepSource) -> dict[str, str]:
        """Folders of a sweep's trials that hold a run, and the ids by which these are opened."""
        paths = [p for p in folders(sweep.path / "trials") if (p / "run.json").is_file()]
        return {path.name: f"{sweep.id}~{path.name}" for path in paths}

    def run(self, name: str) -> RunSource | None:
        """The listed run or trial of this id; its rows are followed from where they were last read."""
        path = self._path(name)
        if path is None:
            self._opened.pop(name, None)
            return None
        source = self._opened.pop(name, None) or RunSource(path, name)
        self._opened[name] = source
        while len(self._opened) > OPENED:
            self._opened.popitem(last=False)
        return source

    def sweep(self, name: str) -> SweepSource | None:
        """The listed sweep of this id."""
        return next((sweep for sweep in self.sweeps() if sweep.id == name), None)

    def _path(self, name: str) -> Path | None:
        for path in folders(self.folder):
            if path.name == name and (path / "run.json").is_file():
                return path
        sweep_name, _, trial = name.partition("~")
        sweep = self.sweep(sweep_name) if trial else None
        if sweep is None or trial not in self.trials(sweep):
            return None
        return sweep.path / "trials" / trial


def folders(folder: Path) -> list[Path]:
    """The visible folders in a folder; none if it is gone or cannot be read."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()]
    except OSError:
        return []
