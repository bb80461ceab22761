"""Writing a run directory: one writer, plain files, the rows of all steps in the file before a checkpoint of the last.

    run.json        {format, id, name, status, attempt, pid, host, created, updated, step, steps, tags, raymeta, reason,
                    variants, sha256}
    config.yaml  command.txt  env.json
    data.json       what the data are: classes of each split, counts, side, channels, hashes (`raymeta.tasks.manifest`)
    metrics.jsonl   {step, attempt, time, metric: value, ...}         one row a step, thinned in long runs
    workers.jsonl   {time, attempt, step, workers: [...]}             snapshots
    events.jsonl    {time, attempt, step, kind, message, ...}
    summary.json    {headline {name, value, ci95, episodes, split, better, of}, params_sha256, tasks_per_s, wall_s}
    eval/test.json

`time` is in seconds since 1970, `created` and `updated` are ISO 8601 in UTC. NaN and infinities are null, as JSON has
no such numbers. `tasks_per_s` and `wall_s` are those of all attempts together.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import secrets
import shlex
import socket
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from raymeta.runs import layout
from raymeta.runs.lock import RunLock
from raymeta.runs.provenance import environment, package_version
from raymeta.runs.read import yaml_mapping
from raymeta.runs.rows import JsonLines, count_rows, keeps_row, row_stride
from raymeta.system.files import json_text, write_json, write_problem, write_whole
from raymeta.system.reading import read_regular
from raymeta.system.redact import without_secrets
from raymeta.system.text import dotted
from raymeta.tasks.manifest import Manifest
from raymeta.trackers.base import WorkerRow
from raymeta.trackers.scores import EPISODES, Scores, is_of_validation

HEARTBEAT_S = 5.0
_SAVE_EVERY_S = 10.0
_WORKERS_EVERY_S = 10.0
_SUFFIX_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike


class Headline(NamedTuple):
    """The one number of a run, as it stands in `summary.json`."""

    name: str
    value: float
    ci95: float
    episodes: int
    split: str
    better: Literal["higher", "lower"]
    of: str = EPISODES


def new_run_directory(output: Path, name: str, now: datetime) -> Path:
    """Create `output/2026-11-20_0915_NAME_k3f9/` exclusively, and `output` where there is none.

    A folder that is made here gets a `.gitignore` of everything; one that was there is somebody's, with other things.
    Raises `EnvironmentProblem` if `output` cannot be made or written.
    """
    try:
        if not output.is_dir():
            output.mkdir(parents=True, exist_ok=True)
            (output / ".gitignore").write_text(
                "# Written by raymeta: runs stay out of git, and so does this file.\n*\n"
            )
    except OSError as error:
        raise write_problem(output, error) from error
    while True:
        # Not a draw of the run: it only keeps two runs of the same minute apart.
        suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(4))
        directory = output / f"{now:%Y-%m-%d_%H%M}_{slug(name)}_{suffix}"
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise write_problem(directory, error) from error
        return directory


def slug(name: str) -> str:
    """`name` as a piece of a folder's name: ASCII letters, digits and `._-`, at most 60, never empty."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    pieces = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_name)
    return re.sub(r"\.{2,}", ".", pieces).strip("-._")[:60].rstrip("-._") or "run"


class RunWriter:
    """The single writer of a run directory, and a `Tracker`.

    Opening a directory that holds a run goes on with it under the next `attempt`; rows that the new attempt computes
    again supersede the old ones when read. Raises `EnvironmentProblem` if another writer is at work there, or if the
    directory cannot be written; a `claim` made before is taken over. While it is open, a daemon thread touches
    `run.json` every `heartbeat_s` seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        steps: int,
        name: str = "",
        tags: Sequence[str] = (),
        claim: RunLock | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self._clock = clock
        self._claim = claim or RunLock(directory)
        self._info = self._begin(self._claim.previous, steps=steps, name=name, tags=tags)
        self._metrics = JsonLines(directory / layout.METRICS)
        self._workers = JsonLines(directory / layout.WORKERS)
        self._events = JsonLines(directory / layout.EVENTS)
        self._rows_before = count_rows(self._metrics.path)
        self._stride: int | None = None
        self._began = clock()
        self._workers_written: tuple[float, list[tuple[str, int]]] = (-math.inf, [])
        try:
            self._save()
        except BaseException:
            self._claim.release()
            raise
        self.heartbeat = Heartbeat(directory / layout.RUN, heartbeat_s)

    def _begin(self, previous: dict[str, Any], *, steps: int, name: str, tags: Sequence[str]) -> dict[str, Any]:
        run_id = self.directory.resolve().name
        return {
            "id": run_id,
            "name": name or previous.get("name") or run_id,
            "status": "running",
            "attempt": self._claim.last_attempt() + 1,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "created": previous.get("created") or _utc(self._clock()),
            "step": previous.get("step", 0),
            "steps": steps,
            "tags": list(tags) or previous.get("tags", []),
            "raymeta": package_version("raymeta"),
            "reason": "",
            "variants": previous.get("variants", {}),
            "sha256": {name: list(hashes) for name, hashes in previous.get("sha256", {}).items()},
        }

    @property
    def id(self) -> str:
        return str(self._info["id"])

    @property
    def attempt(self) -> int:
        """1 for a new run, one more for each resume."""
        return int(self._info["attempt"])

    # What was run

    def write_config(self, text: str) -> None:
        """`config.yaml`: the resolved configuration; `run.json` has the names of its variants, for lists of runs."""
        names = dotted(yaml_mapping(text.encode()))
        self._info["variants"] = {key: names[key] for key in layout.HIGHLIGHTS if key in names}
        self.write_decisive(layout.CONFIG, text)

    def write_decisive(self, name: str, text: str) -> None:
        """A file that decides the result. `run.json` has its hash before the file is there, so that no kill parts them;
        it keeps those of earlier versions, which a mirror may hold."""
        data = without_secrets(text).encode()
        digest = hashlib.sha256(data).hexdigest()
        hashes = self._info["sha256"].setdefault(name, [])
        if digest not in hashes:
            hashes.append(digest)
            self._save()
        write_whole(self.directory / name, data)

    def write_command(self, argv: Sequence[str]) -> None:
        """`command.txt`: one shell line an attempt."""
        path = self.directory / layout.COMMAND
        before = read_regular(path).decode(errors="surrogateescape") if path.is_file() else ""
        text = without_secrets(before + shlex.join(argv) + "\n")
        write_whole(path, text.encode(errors="surrogateescape"))  # as given, be it UTF-8 or not

    def write_data(self, manifest: Manifest) -> None:
        """`data.json`: what the data are."""
        self.write_decisive(layout.DATA, json_text(manifest.to_json(), indent=2) + "\n")

    def write_environment(self) -> None:
        """`env.json`: versions, devices, commit."""
        write_json(self.directory / layout.ENVIRONMENT, environment())

    # What came of it

    def write_summary(
        self, headline: Headline, *, params_sha256: str, tasks_per_s: float, wall_s: float, **more: object
    ) -> None:
        """`summary.json`; other programs rely on these names."""
        contract = {
            "headline": headline._asdict(),
            "params_sha256": params_sha256,
            "tasks_per_s": tasks_per_s,
            "wall_s": wall_s,
        }
        write_json(self.directory / layout.SUMMARY, {**more, **contract})

    def write_evaluation(self, name: str, evaluation: Mapping[str, object]) -> None:
        """`eval/NAME.json`, such as `eval/test.json`."""
        folder = self.directory / layout.EVALUATIONS
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise write_problem(folder, error) from error
        write_json(folder / f"{name}.json", evaluation)

    def finish(self, status: Literal["finished", "stopped", "failed"], reason: str = "") -> None:
        """Say how the run ended; before this it reads as running, or as lost once this process is gone."""
        self.heartbeat.stop()
        self._info.update(status=status, reason=reason)
        self._save()

    # The tracker

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        steps = int(self._info["steps"])
        self._info["step"] = step
        # The first row of an attempt is always there: it tells readers which older rows it supersedes.
        first = self._stride is None
        if self._stride is None:
            self._stride = row_stride(step, steps, self._rows_before)
        kept = first or keeps_row(step, stride=self._stride, steps=steps)
        if kept or any(is_of_validation(name) for name in metrics):
            self._metric_row(step, metrics)
        if self._clock() - self._saved >= _SAVE_EVERY_S:
            self._save()

    def validation(self, step: int, scores: Scores) -> None:
        self._metric_row(step, scores.metrics())
        self.event("validation", scores.text, **{**scores._asdict(), "step": step})

    def event(self, kind: str, message: str, **fields: object) -> None:
        fixed = {"time": self._now(), "attempt": self.attempt, "step": fields.pop("step", self._info["step"])}
        self._events.append({**fixed, "kind": kind, "message": message, **fields, **fixed})

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        """Written when a worker comes, goes or is started again, else at growing intervals: about 1 % of the time
        that passed, so that the file stays small."""
        now = self._clock()
        written_at, written = self._workers_written
        members = [(row.name, row.restarts) for row in rows]
        every_s = max(_WORKERS_EVERY_S, 0.01 * (now - self._began))
        if members == written and now - written_at < every_s:
            return
        self._workers_written = (now, members)
        stamp = {"time": self._now(), "attempt": self.attempt, "step": self._info["step"]}
        self._workers.append({**stamp, "workers": [row._asdict() for row in rows]})

    def close(self) -> None:
        """Stop the heartbeat and put all rows on the disk; a run that nobody finished reads as stopped."""
        self.heartbeat.stop()
        with contextlib.ExitStack() as last_things:
            last_things.callback(self._claim.release)
            if self._info["status"] == "running":
                last_things.callback(self.finish, "stopped", "closed before it was finished")
            for file in (self._metrics, self._workers, self._events):
                last_things.callback(file.close)

    def _metric_row(self, step: int, metrics: Mapping[str, float]) -> None:
        self._metrics.append({"step": step, "attempt": self.attempt, "time": self._now(), **metrics})

    def _now(self) -> float:
        return round(self._clock(), 3)

    def _save(self) -> None:
        self._saved = self._clock()
        self._info["updated"] = _utc(self._saved)
        write_json(self.directory / layout.RUN, layout.numbered(self._info))


class Heartbeat:
    """A daemon thread that touches `path`, so that others can tell a working run from a dead one."""

    def __init__(self, path: Path, every_s: float) -> None:
        self._path = path
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="raymeta-heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stopped.wait(self._every_s):
            # A file server that is away for a while costs a beat, not the run.
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def stop(self) -> None:
        """No touch comes after this; may be called again."""
        self._stopped.set()
        self._thread.join(timeout=1.0)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
