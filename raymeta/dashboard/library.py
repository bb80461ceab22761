"""The runs, sweeps and measurements of a folder. Only what stands in the listing can be asked for, by its id."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from raymeta.dashboard.guard import inside
from raymeta.runs import layout
from raymeta.views.pages.sweep import SWEEP_FILES
from raymeta.views.sources.bench import BenchSource
from raymeta.views.sources.run import RunSource
from raymeta.views.sources.sweep import SweepSource

OPENED = 32
"""Runs whose rows are held in memory; of those opened longest ago they are read again."""
MAX_MEASUREMENTS = 200
"""Files of measurements that are looked at; of more, those whose names come last."""


class Library:
    """What a dashboard serves. Not for several threads at once."""

    def __init__(self, folder: Path, measurements: Sequence[Path] = ()) -> None:
        """`measurements`: files of `raymeta bench`, or folders of them, to show beside those in the folder itself."""
        self.folder = folder
        self._named = list(measurements)
        self._listed: dict[str, RunSource] = {}
        self._opened: OrderedDict[str, RunSource] = OrderedDict()
        self._sweeps: dict[str, SweepSource] = {}
        self._benches: dict[str, BenchSource] = {}

    def runs(self) -> list[RunSource]:
        """The runs directly in the folder, newest first."""
        found = {path.name: path for path in folders(self.folder) if (path / layout.RUN).is_file()}
        self._listed = {name: self._listed.get(name) or RunSource(path, name) for name, path in found.items()}
        return sorted(self._listed.values(), key=lambda source: (source.run.created, source.id), reverse=True)

    def sweeps(self) -> list[SweepSource]:
        """The sweeps in the folder's `sweeps`, the last name first."""
        paths = [p for p in folders(self.folder / layout.SWEEPS) if any((p / name).is_file() for name in SWEEP_FILES)]
        found = {path.name: path for path in paths}
        self._sweeps = {name: self._sweeps.get(name) or SweepSource(path) for name, path in found.items()}
        return [self._sweeps[name] for name in sorted(found, reverse=True)]

    def benches(self) -> list[BenchSource]:
        """The JSON files in the folder's `benchmarks` and those that were named, results of `raymeta bench` or not."""
        found = {path.name: path for path in _json_files(self.folder / "benchmarks")}
        for named in self._named:
            paths = _json_files(named) if named.is_dir() else [named] if named.is_file() else []
            found |= {str(path): path for path in paths}
        chosen = dict(sorted(found.items())[-MAX_MEASUREMENTS:])
        self._benches = {name: self._benches.get(name) or BenchSource(path, name) for name, path in chosen.items()}
        return list(self._benches.values())

    def trials(self, sweep: SweepSource) -> dict[str, str]:
        """Folders of a sweep's trials that hold a run, and the ids by which these are opened."""
        paths = [p for p in folders(sweep.path / layout.TRIALS) if (p / layout.RUN).is_file()]
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
            if path.name == name and (path / layout.RUN).is_file():
                return path
        sweep_name, _, trial = name.partition("~")
        sweep = self.sweep(sweep_name) if trial else None
        if sweep is None or trial not in self.trials(sweep):
            return None
        return sweep.path / layout.TRIALS / trial


def _json_files(folder: Path) -> list[Path]:
    """Regular, visible `.json` files in a folder; links that lead out of it are left out."""
    try:
        names = [path.name for path in folder.iterdir() if path.suffix == ".json"]
    except OSError:
        return []
    return [folder / name for name in names if inside(folder, name) is not None]


def folders(folder: Path) -> list[Path]:
    """The visible folders in a folder; none if it is gone or cannot be read."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()]
    except OSError:
        return []
