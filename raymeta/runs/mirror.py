"""The mirror of a run's folder in a store, kept up to date by one thread while the run goes on.

Object stores neither append nor rename, so a file that changed is sent whole, at most every few seconds and for at most
a tenth of the time. A pass sends, in this order: the files, so that the rows of a step are there before its checkpoint;
new checkpoints, each ending with the `state.json` that makes it one; their index; events, configuration and `run.json`
as they were before, which so tell of no checkpoint that is not there. Then it deletes the checkpoints that the run no
longer keeps.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import NamedTuple

from raymeta.errors import EnvironmentProblem
from raymeta.runs import layout
from raymeta.runs.restore import CHECKPOINTS, checkpoint_of
from raymeta.system.remote import Remote
from raymeta.trackers.base import WorkerRow
from raymeta.trackers.scores import Scores

EVERY_S = 3.0
"""Seconds between passes."""
SHARE = 0.1
"""Part of the time for which a file that keeps changing may be on its way."""
LONGEST_PAUSE_S = 60.0
"""Seconds between attempts at a store that has not answered for long."""
PATIENCE_S = 30.0
"""Seconds for which the end of a run goes on trying a store that does not answer."""

_INDEX = f"{CHECKPOINTS}{layout.INDEX}"
_TELLING = (*layout.DECISIVE, layout.EVENTS, layout.RUN)
"""Read in this order. In the store, a `run.json` always has those files beside it whose hashes it knows."""


class Stamp(NamedTuple):
    """What tells one version of a local file from the next."""

    time_ns: int
    size: int


class Mirror:
    """Keeps `remote` equal to the run in `directory`, in a `with` block around everything that writes there.

    Whatever happens to the store, the run goes on: the trouble is told once, by `notices`, and the store is tried again
    at growing intervals. Leaving the block sends the rest, and raises `EnvironmentProblem` naming what could not be
    sent; where something else failed already, that becomes a note on its error.
    """

    def __init__(
        self, directory: Path, remote: Remote, *, every_s: float = EVERY_S, patience_s: float = PATIENCE_S
    ) -> None:
        self.remote = remote
        self._directory = directory
        self._every_s, self._patience_s = every_s, patience_s
        self._sent: dict[str, Stamp] = {}
        self._not_before: dict[str, float] = {}
        self._in_store: set[str] = set()  # checkpoints, whole or torn
        self._decisive: set[str] = set()  # of these files, those in the store
        self._certain = False  # whether `_sent` and `_in_store` were compared with the store since the last trouble
        self._trouble: Exception | None = None
        self._notices: SimpleQueue[str] = SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="raymeta-mirror", daemon=True)

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()
        if (problem := self._problem()) is None:
            return
        if error is None:
            raise problem from self._trouble
        error.add_note(str(problem))

    def notices(self) -> list[str]:
        """What a person should know, once each: the store does not answer, or does so again."""
        found = []
        while True:
            try:
                found.append(self._notices.get_nowait())
            except Empty:
                return found

    def _work(self) -> None:
        pause_s = 0.0
        while not self._closing.wait(pause_s):
            pause_s = self._every_s if self._attempt() else min(max(2 * pause_s, self._every_s), LONGEST_PAUSE_S)
        deadline, pause_s = time.monotonic() + self._patience_s, 0.25
        while not self._attempt(last=True) and time.monotonic() < deadline:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 4.0)

    def _attempt(self, *, last: bool = False) -> bool:
        """One pass; whether all went well. No error of a store may end a run, so each becomes a notice."""
        try:
            self._pass(last)
        except Exception as error:
            if self._trouble is None:
                self._notices.put(f"the mirror waits: {error}. It is tried again and again; the run goes on")
            self._trouble, self._certain = error, False
            return False
        if self._trouble is not None:
            self._notices.put(f"the mirror {self.remote} is up to date again")
            self._trouble = None
        return True

    def _pass(self, last: bool) -> None:
        telling = self._telling()
        files = self._local()
        if not self._certain:
            self._compare(files)
            self._certain = True
        checkpoints = sorted({step for name in files if (step := checkpoint_of(name))}, reverse=True)
        plain = [name for name in files if not checkpoint_of(name) and name not in (_INDEX, *_TELLING)]
        for name in plain:
            self._send(name, files[name], at_once=last)
        for step in checkpoints:
            self._send_checkpoint(step, files)
        self._send_index(files)
        for name, stamp, data in sorted(telling, key=lambda file: self._turn(file[0])):
            self._send(name, stamp, at_once=last, data=data)
        self._decisive |= self._sent.keys() & {*layout.DECISIVE}
        self._prune()

    def _telling(self) -> list[tuple[str, Stamp, bytes]]:
        """Files that tell of others; none in the moment in which `run.json` has a hash of what is not there yet."""
        found = {name: version for name in _TELLING if (version := self._version(name)) is not None}
        told = found.get(_TELLING[-1], (None, b""))[1]
        if any(f'"{name}"'.encode() in told and name not in found for name in layout.DECISIVE):
            return []
        return [(name, *version) for name, version in found.items()]

    def _turn(self, name: str) -> int:
        """What decides a result goes before `run.json` where the store lacks it, else after: `run.json` knows both."""
        return 0 if name not in layout.DECISIVE else 1 if name in self._decisive else -1

    def _version(self, name: str) -> tuple[Stamp, bytes] | None:
        """A file's content, and a stamp that is no newer."""
        path = self._directory / name
        try:
            status = path.stat()
            return Stamp(status.st_mtime_ns, status.st_size), path.read_bytes()
        except FileNotFoundError:
            return None

    def _local(self) -> dict[str, Stamp]:
        """Files of the run that are to be mirrored, whole checkpoints only, with what tells their versions apart."""
        found: dict[str, Stamp] = {}
        for path in sorted(self._directory.rglob("*")):
            name = path.relative_to(self._directory).as_posix()
            if any(part.startswith(".") for part in name.split("/")):  # on its way to its name
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file():
                found[name] = Stamp(status.st_mtime_ns, status.st_size)
        return {n: stamp for n, stamp in found.items() if not (s := checkpoint_of(n)) or f"{s}/{layout.STATE}" in found}

    def _compare(self, files: Mapping[str, Stamp]) -> None:
        """Look at what is in the store: after trouble it may have less than was sent, on resume it has a lot."""
        there = self.remote.files()
        self._decisive = {*there} & {*layout.DECISIVE}
        self._in_store = {step for name in there if (step := checkpoint_of(name))}
        self._sent = {n: stamp for n, stamp in self._sent.items() if n in there and there[n].size == stamp.size}
        for step in self._in_store:
            ours = {name: stamp for name, stamp in files.items() if checkpoint_of(name) == step}
            same = ours and all(name in there and there[name].size == stamp.size for name, stamp in ours.items())
            state = f"{step}/{layout.STATE}"  # holds the hashes of the others
            if same and self.remote.read(state) == (self._directory / state).read_bytes():
                self._sent |= ours

    def _send(self, name: str, stamp: Stamp, *, at_once: bool, data: bytes | None = None) -> bool:
        """Send a file if it changed, and not again too soon; False for one that is not there any more."""
        if self._sent.get(name) == stamp:
            return True
        began = time.monotonic()
        if not at_once and began < self._not_before.get(name, began):
            return True
        try:
            self.remote.write(name, self._directory / name if data is None else data)
        except FileNotFoundError:  # of a checkpoint that is no longer kept
            return False
        self._sent[name] = stamp
        now = time.monotonic()
        self._not_before[name] = now + (now - began) * (1 / SHARE - 1)
        return True

    def _send_checkpoint(self, step: str, files: Mapping[str, Stamp]) -> None:
        names = [name for name in files if checkpoint_of(name) == step]
        if any(self._sent.get(name) != files[name] for name in names):
            self._in_store.add(step)
        state_last = sorted(names, key=lambda name: name.endswith(f"/{layout.STATE}"))
        all(self._send(name, files[name], at_once=True) for name in state_last)  # ends at the first that is gone

    def _send_index(self, files: Mapping[str, Stamp]) -> None:
        """The index follows the checkpoints it names; where one was written just now, it waits for the next pass."""
        if _INDEX not in files:
            return
        named = json.loads((self._directory / _INDEX).read_bytes())
        states = [f"{CHECKPOINTS}{named[key]}/{layout.STATE}" for key in ("last", "best") if key in named]
        if all(state in self._sent or not (self._directory / state).exists() for state in states):
            self._send(_INDEX, files[_INDEX], at_once=True)

    def _prune(self) -> None:
        """Delete checkpoints that the run no longer keeps, once one that it keeps is in the store."""
        kept = {step for name in self._local() if (step := checkpoint_of(name))}
        if not any(f"{step}/{layout.STATE}" in self._sent for step in kept):
            return
        for step in sorted(self._in_store - kept):
            self.remote.delete(f"{step}/{layout.STATE}")  # first, so that half a checkpoint is none
            self.remote.delete_folder(step)
            self._in_store.discard(step)
            self._sent = {name: stamp for name, stamp in self._sent.items() if checkpoint_of(name) != step}

    def _problem(self) -> EnvironmentProblem | None:
        """What to tell at the end; None if the store has everything."""
        unsent = [name for name, stamp in self._local().items() if self._sent.get(name) != stamp]
        if not unsent:
            return EnvironmentProblem(str(self._trouble)) if self._trouble else None
        listing = ", ".join(unsent[:6]) + (f" and {len(unsent) - 6} more" if len(unsent) > 6 else "")
        return EnvironmentProblem(
            f"{len(unsent)} files of {self._directory} are not in its mirror: {listing}. "
            f"{self._trouble or 'They changed meanwhile'}. Nothing is lost here: once the store answers, "
            f"raymeta train --resume {self._directory} --mirror {self.remote.parent} sends them"
        )


class MirrorNotices:
    """A tracker that passes on what the mirror has to say, in the driver's thread."""

    def __init__(self, mirror: Mirror, tell: Callable[[str, str], None]) -> None:
        self._mirror, self._tell = mirror, tell

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        for notice in self._mirror.notices():
            self._tell("warning", notice)

    def event(self, kind: str, message: str, **fields: object) -> None: ...

    def validation(self, step: int, scores: Scores) -> None: ...

    def workers(self, rows: Sequence[WorkerRow]) -> None: ...

    def close(self) -> None: ...
