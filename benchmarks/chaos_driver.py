"""The training that benchmarks/chaos.py disturbs: `raymeta train` with a log of its steps, and tasks that can raise.

    python benchmarks/chaos_driver.py CONTROL [--resume RUN] PRESET [KEY=VALUE ...]

CONTROL is a folder. Every step done is a line `TIME STEP` of its `steps.log`; a file `raise` in it makes one shard
raise, on whatever worker sees it first.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic.dataclasses import dataclass

from raymeta import load_run
from raymeta.api.resume import resumed_config
from raymeta.api.train import Training
from raymeta.config.load import load_config
from raymeta.errors import RaymetaError
from raymeta.keys import TaskKey
from raymeta.tasks.episodes import Episode
from raymeta.tasks.images.omniglot.task_set import Omniglot
from raymeta.tasks.sinusoid import Sinusoid
from raymeta.trackers.base import WorkerRow
from raymeta.trackers.scores import Scores

CONTROL = "RAYMETA_CHAOS"
"""Environment variable that names the folder to the workers."""


class RaisedByChaos(RuntimeError):
    """A bug that shows once."""


def raise_once() -> None:
    """Raise if that was asked for and nobody has done it yet."""
    flag = os.path.join(os.environ[CONTROL], "raise")
    try:
        os.rename(flag, flag + ".done")
    except OSError:
        return
    raise RaisedByChaos("asked for")


@dataclass(frozen=True, kw_only=True)
class ChaosOmniglot(Omniglot):
    """Omniglot whose episodes may raise."""

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        raise_once()
        return super().episodes(keys)


@dataclass(frozen=True, kw_only=True)
class ChaosSinusoid(Sinusoid):
    """Sinusoids whose episodes may raise."""

    def episodes(self, keys: Sequence[TaskKey]) -> Episode:
        raise_once()
        return super().episodes(keys)


class StepLog:
    """A tracker that tells another process of every step."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", buffering=1)  # noqa: SIM115  open as long as the run

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._file.write(f"{time.time()} {step}\n")

    def event(self, kind: str, message: str, **fields: object) -> None: ...

    def validation(self, step: int, scores: Scores) -> None: ...

    def workers(self, rows: Sequence[WorkerRow]) -> None: ...

    def close(self) -> None:
        self._file.close()


def main() -> int:
    """Run the command."""
    control, *rest = sys.argv[1:]
    log = [StepLog(Path(control) / "steps.log")]
    resume = None
    if rest[0] == "--resume":
        resume = load_run(rest[1])
        rest = rest[2:]
    options = {key: yaml.safe_load(value) for key, value in (text.split("=", 1) for text in rest[1:])}
    if resume is None:
        loaded = load_config(preset=rest[0], overrides=options)
    else:
        loaded = resumed_config(resume, options, trust=True)  # a run that this benchmark began
    training = Training(loaded.config, resume=resume, trackers=lambda title: log)
    try:
        training.execute()
    except RaymetaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 130 if training.reason == "signal" else 0


if __name__ == "__main__":
    sys.exit(main())
