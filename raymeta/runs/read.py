"""Reading runs: plain files only, safe while the run is being written, and after its writer was killed.

No pickle is ever loaded.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from raymeta.errors import ConfigError, DataError, EnvironmentProblem
from raymeta.runs import layout
from raymeta.runs.ending import Ending, ending
from raymeta.runs.layout import NewerFormat
from raymeta.runs.restore import CHECKPOINTS, copy_to_look_at, fetch
from raymeta.runs.rows import current_rows, read_rows
from raymeta.system.files import nan_for_null
from raymeta.system.reading import TEXT_BYTES, parse_json, read_regular
from raymeta.system.redact import without_secrets
from raymeta.system.remote import Remote, is_uri
from raymeta.system.text import nearest
from raymeta.system.yaml_bounds import LOADER, require_bounded

if TYPE_CHECKING:
    import pandas as pd

    from raymeta.tasks.manifest import Manifest

Status = Literal["running", "finished", "stopped", "failed", "lost"]
STALE_S = 20.0
"""A running run whose heartbeat is older than this is lost; the writer's heart beats every 5 s."""

_INFO: dict[str, type] = {"name": str, "status": str, "created": str, "updated": str, "host": str, "reason": str}
_INFO |= {"attempt": int, "pid": int, "step": int, "steps": int, "tags": list, "sha256": dict, "variants": dict}
_HEADLINE: dict[str, Any] = {"name": str, "value": float | None, "ci95": float | None, "episodes": int, "split": str}
_SCORES = ("headline", "by_inner_step")  # of a summary; what is null there was no finite number


@dataclass(frozen=True)
class Run:
    """One run directory. Files are read when asked for, so a `Run` of a running run stays current, `info` apart."""

    path: Path
    info: dict[str, Any] = field(repr=False)
    mirror: Remote | None = None
    """Where a run of a store is; `path` is then a copy without checkpoints, to look at."""
    trusted: bool = field(default=False, repr=False, compare=False)
    """Whether the person said that code which this run names may be imported."""
    refused: bool = field(default=False, repr=False, compare=False)
    """Whether a newer raymeta made it; `info` says so. It is listed, and nothing else."""

    @classmethod
    def open(cls, path: Path) -> Run:
        """The run in folder `path`; a damaged `run.json` makes a run that is `lost` and says why."""
        try:
            info = parse_json(read_regular(path / layout.RUN))
        except (OSError, ValueError) as error:
            return cls(path, {"reason": f"run.json cannot be read: {error}"})
        if not isinstance(info, dict):
            return cls(path, {"reason": "run.json is not a JSON object"})
        try:
            info = layout.read_format(info)
        except ValueError as error:
            return cls(path, {"reason": f"run.json cannot be read: {error}"}, refused=isinstance(error, NewerFormat))
        for key, kind in _INFO.items():
            if key in info and not _is_sound(info[key], kind):
                return cls(path, {"reason": f"run.json is damaged: {key} is {info[key]!r:.80}"})
        return cls(path, info)

    @property
    def place(self) -> str:
        """Where the run is, for people: its folder, or its URI without credentials."""
        return str(self.mirror or self.path)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints; fetched first where the run is in a store. Raises `EnvironmentProblem`."""
        folder = self.path / CHECKPOINTS
        if self.mirror is not None and not folder.exists():
            fetch(self.mirror, self.path, lambda name: name.startswith(CHECKPOINTS))
        return folder

    @cached_property
    def id(self) -> str:
        """The folder's name: unique in its output folder."""
        return self.path.resolve().name

    @property
    def name(self) -> str:
        return str(self.info.get("name") or self.id)

    @property
    def created(self) -> str:
        """ISO 8601 in UTC; such texts sort by time."""
        return str(self.info.get("created") or "")

    @property
    def status(self) -> Status:
        """What `run.json` says, except that a run nobody is writing any more is `lost`."""
        status = self.info.get("status")
        if status in ("finished", "stopped", "failed"):
            return status  # type: ignore[no-any-return]
        return "running" if status == "running" and is_being_written(self.path, self.info) else "lost"

    @property
    def ending(self) -> Ending:
        """How it ended, in words: a run that its time limit stopped is `finished`, and not with all of its steps."""
        return ending(self.status, self.info)

    @property
    def began(self) -> bool:
        """Whether it is more than a start that failed, or was killed."""
        if self.status not in ("failed", "lost") or self.info.get("step"):
            return True
        rows = self.path / layout.METRICS  # `run.json` is behind by some seconds
        return rows.is_file() and rows.stat().st_size > 0

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration; empty when the run died before it was written. Raises `DataError`."""
        path = self.path / layout.CONFIG
        try:
            return yaml_mapping(read_regular(path, TEXT_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error

    @property
    def variants(self) -> dict[str, str]:
        """`algorithm.name`, `tasks.name` and `model.name`: from `run.json`, as a list of runs reads no configuration.

        Of a run of an earlier version they are not there. Raises nothing.
        """
        named = self.info.get("variants", {})
        return {key: value for key, value in named.items() if isinstance(value, str)}

    @property
    def manifest(self) -> Manifest | None:
        """What the run recorded of its data in `data.json`; None of a run that recorded nothing. Raises `DataError`."""
        from raymeta.tasks.manifest import Manifest  # numpy, which listing runs does not wait for

        path = self.path / layout.DATA
        try:
            return Manifest.from_json(parse_json(read_regular(path)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, DataError) as error:
            raise DataError(
                f"{path} cannot be read: {error}. It says which classes the run held out: put it back from a copy"
            ) from error

    @property
    def summary(self) -> dict[str, Any] | None:
        """`summary.json`, or None as long as there is none. Raises `DataError`."""
        path = self.path / layout.SUMMARY
        try:
            summary = parse_json(read_regular(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        if not isinstance(summary, dict):
            raise DataError(f"{path} is not a JSON object")
        headline = summary.get("headline", {})
        if not isinstance(headline, dict):
            raise DataError(f"{path} is damaged: its headline is no mapping")
        wrong = [key for key, kind in _HEADLINE.items() if not _is_sound(headline.get(key), kind)]
        if headline != {} and wrong:
            raise DataError(f"{path} is damaged: {wrong[0]} of its headline is {headline.get(wrong[0])!r:.80}")
        return summary | {key: nan_for_null(summary[key]) for key in _SCORES if key in summary}

    @property
    def headline(self) -> dict[str, Any] | None:
        """The summary's headline {name, value, ci95, episodes, split, better}."""
        headline = (self.summary or {}).get("headline")
        return headline if isinstance(headline, dict) else None

    def events(self) -> list[dict[str, Any]]:
        """All events of all attempts, oldest first: {time, attempt, step, kind, message, ...}."""
        return read_rows(self.path / layout.EVENTS)[0]

    def workers(self) -> list[dict[str, Any]]:
        """Snapshots of the workers, oldest first: {time, attempt, step, workers: [...]}."""
        return read_rows(self.path / layout.WORKERS)[0]

    def metrics(self) -> list[dict[str, Any]]:
        """One row {step, attempt, time, metric: value, ...} a step, in order of step, see `current_rows`."""
        return current_rows(nan_for_null(read_rows(self.path / layout.METRICS)[0]))

    def frame(self) -> pd.DataFrame:
        """`metrics()` as a data frame. Raises `EnvironmentProblem` without pandas."""
        pd = require_pandas()
        rows = self.metrics()
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["step", "attempt", "time"])


def yaml_mapping(data: bytes) -> dict[str, Any]:
    """A YAML mapping as this library writes them. Raises `ValueError` or `yaml.YAMLError` for anything else."""
    require_bounded(data, aliases=False)
    value = yaml.load(data, Loader=LOADER)
    if not isinstance(value, dict):
        raise ValueError("it holds no mapping of options")
    return value


def _is_sound(value: object, kind: Any) -> bool:
    """Whether JSON of our own could hold `value` there: whole numbers pass for floats, truth values for no number."""
    return isinstance(value, kind | int if kind in (float, float | None) else kind) and not isinstance(value, bool)


def is_being_written(directory: Path, info: dict[str, Any]) -> bool:
    """Whether the writer named in `info` lives: a fresh heartbeat and, on this host, a process of that id."""
    try:
        age_s = time.time() - (directory / layout.RUN).stat().st_mtime
    except OSError:
        return False
    return age_s < STALE_S and (info.get("host") != socket.gethostname() or _process_lives(info.get("pid")))


def _process_lives(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    if os.name == "nt":  # signal 0 would end the process there; the heartbeat alone has to tell
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and belongs to someone else
        return True
    return True


def find_runs(output: str | Path) -> list[Run]:
    """Runs directly under `output`, a folder or a URI, newest first; none if there is no such folder.

    Raises `DataError`, `EnvironmentProblem`.
    """
    if is_uri(output):
        runs = [_copy(remote, _HEADERS) for remote in _runs_in_store(Remote.open(str(output)))]
    else:
        try:
            runs = [Run.open(path) for path in Path(output).iterdir() if (path / layout.RUN).is_file()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise DataError(f"{output} cannot be read: {error}") from error
    return sorted(runs, key=lambda run: (run.created, run.id), reverse=True)


_HEADERS = frozenset({layout.RUN, layout.CONFIG, layout.SUMMARY})


def _runs_in_store(remote: Remote) -> list[Remote]:
    return [remote / name for name in remote.folders() if (remote / name).read(layout.RUN) is not None]


def _copy(remote: Remote, names: frozenset[str] | None = None) -> Run:
    """A run of a store to look at: the files of these names, or all but checkpoints and TensorBoard's."""

    def wanted(name: str) -> bool:
        return name in names if names is not None else not name.startswith((CHECKPOINTS, f"{layout.TENSORBOARD}/"))

    return replace(Run.open(copy_to_look_at(remote, wanted)), mirror=remote)


def resolve_run(reference: str, output: str | Path) -> Run:
    """The run a person means: `latest`, a path, a URI, a run's id or name, or the unique beginning of an id.

    A run that failed or was killed before its first step is not the latest while there are others.

    Raises `ConfigError` for an unknown or ambiguous reference, `DataError` if there are no runs at all, or where a
    newer raymeta made it.
    """
    run = _meant(reference, output)
    if run.refused:
        raise DataError(f"{run.place}: {run.info['reason']}")
    return run


def _meant(reference: str, output: str | Path) -> Run:
    if is_uri(reference):
        remote = Remote.open(reference)
        if remote.read(layout.RUN) is None:
            raise DataError(f"{remote} holds no run; raymeta runs ls {remote.parent} lists those beside it")
        return _copy(remote)
    if reference != "latest" and (Path(reference) / layout.RUN).is_file():
        return Run.open(Path(reference))
    run = _find(reference, output)
    return run if run.mirror is None else _copy(run.mirror)


def _find(reference: str, output: str | Path) -> Run:
    runs, place = find_runs(output), without_secrets(str(output))
    if not runs:
        raise DataError(f"no runs in {place}: start one with python -m raymeta.train, or name another --output")
    if reference == "latest":
        return next((run for run in runs if run.began), runs[0])
    ways: tuple[tuple[str, Callable[[Run], bool]], ...] = (
        ("the id", lambda run: run.id == reference),
        ("the name", lambda run: run.name == reference),
        ("the beginning", lambda run: bool(reference) and run.id.startswith(reference)),
    )
    for what, is_meant in ways:
        matches = [run for run in runs if is_meant(run)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ConfigError(f"«{reference}» is {what} of {len(matches)} runs: {_listing(matches)}; give one of these")
    raise ConfigError(f"no run «{reference}» in {place}; the nearest are: {_listing(_nearest(reference, runs))}")


def _nearest(reference: str, runs: list[Run]) -> list[Run]:
    containing = [run for run in runs if reference and (reference in run.id or reference in run.name)]
    close = nearest(reference, [run.id for run in runs], most=5, cutoff=0.5)
    return containing or [run for run in runs if run.id in close] or runs


def _listing(runs: list[Run]) -> str:
    return ", ".join(run.id for run in runs[:5]) + (" ..." if len(runs) > 5 else "")


def require_pandas() -> Any:
    """The module, or `EnvironmentProblem` with what to install."""
    try:
        import pandas as pd
    except ImportError as error:
        raise EnvironmentProblem("a data frame needs pandas: pip install 'raymeta[frames]'") from error
    return pd
