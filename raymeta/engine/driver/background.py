"""Checkpoints written beside training: the driver takes the next steps while one thread writes the files."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

from raymeta.engine.driver.checkpoint import Checkpoint, CheckpointStore


class Saved(NamedTuple):
    """A checkpoint that lies whole on the disk."""

    step: int
    best: bool


class BackgroundStore:
    """A `CheckpointStore` whose `save` returns at once, with a copy of the parameters on its way to the disk.

    At most one is on its way, so there is one copy more in memory and never a queue. Files, order and errors are those
    of the store; an error is raised by the next call after it, and by leaving the `with` block.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raymeta-checkpoint")
        self._on_its_way: Future[Saved | None] | None = None
        self._asked: set[int] = set()
        self._saved: list[Saved] = []

    def save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        """As `CheckpointStore.save`, but only begun; waits for the one before, and raises its error."""
        self.drain()
        first = not self.has(checkpoint.step)
        self._asked.add(checkpoint.step)
        self._on_its_way = self._thread.submit(self._write, checkpoint.clone(), best, first)

    def _write(self, checkpoint: Checkpoint, best: bool, first: bool) -> Saved | None:
        self._store.save(checkpoint, best=best)
        return Saved(checkpoint.step, best) if first else None

    def has(self, step: int) -> bool:
        """Whether this attempt has saved the checkpoint of `step`, or is about to."""
        return step in self._asked

    def index(self) -> dict[str, str]:
        """Names of the `last` and `best` checkpoints, after the one on its way."""
        self.drain()
        return self._store.index()

    def finished(self) -> list[Saved]:
        """Checkpoints that were completed since the last call. Does not wait; raises the error of one that failed."""
        if self._on_its_way is not None and self._on_its_way.done():
            self.drain()
        saved, self._saved = self._saved, []
        return saved

    def drain(self) -> None:
        """Wait for the checkpoint on its way. Raises `EnvironmentProblem` where it could not be written."""
        on_its_way, self._on_its_way = self._on_its_way, None
        if on_its_way is not None and (saved := on_its_way.result()) is not None:
            self._saved.append(saved)

    def __enter__(self) -> BackgroundStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last checkpoint. Where something else failed already, its error becomes a note on that one."""
        try:
            self.drain()
        except Exception as problem:
            if error is None:
                raise
            error.add_note(str(problem))
        finally:
            self._thread.shutdown()
