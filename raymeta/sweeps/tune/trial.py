"""One trial: an ordinary run in `trials/ID`, which reports to Ray Tune and waits for its word to go on.

The run trains in a thread of its own and stands still at each report, so that a scheduler's decision comes before the
next step. Checkpoints go through Tune as copies of the run's own, so that another trial can continue from them.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from raymeta.api.train import Training, told
from raymeta.config.schema import RunConfig
from raymeta.runs import layout
from raymeta.runs.read import Run
from raymeta.sweeps.file.load import load_sweep
from raymeta.sweeps.records import Record, Report, reports_of
from raymeta.sweeps.summary import trial_config
from raymeta.sweeps.tune.schedulers import result_of
from raymeta.system.reading import read_text
from raymeta.trackers.base import WorkerRow
from raymeta.trackers.scores import Scores

STOP_FILE = layout.STOP
"""While this file lies in a sweep's folder, its trials stop after their current step; it holds the reason."""
_LOOK_EVERY_S = 0.5
_END_S = 120.0
"""How long a trial may take to stop: its current step, and a checkpoint."""


class SweepTrial(tune.Trainable):
    """Ray Tune's view of a trial. The name of the trial is its id, which stays when PBT copies a configuration."""

    def setup(self, config: dict[str, Any], directory: str = "") -> None:
        self._sweep_directory = Path(directory)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Use this process for another trial: it has imported everything already."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        trial = config["trial"]
        sweep = load_sweep(self._sweep_directory / layout.SWEEP, check=False, foreign=False)  # the driver's
        record = Record(str(self.trial_name), trial["index"], trial["repeat"], trial["point"])
        self._config = trial_config(sweep, record, self._sweep_directory)
        self._directory = self._sweep_directory / layout.TRIALS / record.id
        self._session: Session | None = None

    def step(self) -> dict[str, Any]:
        """Train until the next report, or to the end."""
        if self._session is None:
            self._session = Session(self._config, self._directory, self._sweep_directory / STOP_FILE)
        return {**self._session.next(), "id": str(self.trial_name)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copy the run's last and best checkpoints."""
        source, target = self._directory / layout.CHECKPOINTS, Path(checkpoint_dir) / layout.CHECKPOINTS
        target.mkdir(parents=True)
        if (source / layout.INDEX).exists():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """Put these checkpoints, perhaps another trial's, in the place of the run's own."""
        target = self._directory / layout.CHECKPOINTS
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(checkpoint_dir) / layout.CHECKPOINTS, target)

    def cleanup(self) -> None:
        if self._session is not None:
            self._session.end("stopped early by the sweep")
            self._session = None


class Session:
    """A run in a thread. `next` lets it go on to its next report."""

    def __init__(self, config: RunConfig, directory: Path, stop_file: Path) -> None:
        self._config, self._directory, self._stop_file = config, directory, stop_file
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()
        self._go = threading.Semaphore(0)
        self._stop_reason: str | None = None
        self._looked = 0.0
        self.last: Report | None = None
        self._thread = threading.Thread(target=self._run, name="raymeta-trial", daemon=True)
        self._started = False

    def next(self) -> dict[str, Any]:
        """What the run reports next, as a result of Tune."""
        if self._started:
            self._go.release()
        else:
            self._started = True
            self._thread.start()
        return self._results.get()

    def report(self, report: Report) -> None:
        """Called in the run's thread: hand over a report and wait."""
        self._results.put({**_result(report), "done": False})
        self._go.acquire()

    def end(self, reason: str) -> None:
        """Stop the run where it is, with a checkpoint, and wait until it has."""
        self._stop_reason = self._stop_reason or reason
        self._go.release()
        if self._started:
            self._thread.join(_END_S)

    def _stop(self) -> str | None:
        if self._stop_reason is None and time.monotonic() - self._looked > _LOOK_EVERY_S:
            self._looked = time.monotonic()
            if self._stop_file.is_file():
                self._stop_reason = read_text(self._stop_file) or "the sweep was stopped"
        return self._stop_reason

    def _run(self) -> None:
        try:
            before = Run.open(self._directory) if (self._directory / layout.RUN).is_file() else None
            training = Training(
                self._config,
                resume=before,
                directory=self._directory,
                command=["raymeta", "tune"],
                trackers=lambda title: [Reporter(self, self._config.steps)],
                stop=self._stop,
            )
            run = training.execute()
            last = self.last or next(reversed(reports_of(run)), None)  # the last step may be of an attempt before
            ended: dict[str, Any] = {"stopped": self._stop_reason} if training.reason == "signal" else {}
            if run.summary is not None and not ended:
                ended = {"params_sha256": run.summary["params_sha256"], "headline": run.summary["headline"]}
            self._results.put({**(_result(last) if last else {}), **ended, "done": True})
        except BaseException as error:  # told to the sweep, which shows it; a thread's own death would be silent
            self._results.put({"failed": told(error), "done": True})


class Reporter:
    """A tracker that hands over each validation once its checkpoint is safe, all but the last of a run."""

    def __init__(self, session: Session, steps: int) -> None:
        self._session, self._steps = session, steps
        self._unsaved: dict[int, Report] = {}  # on a busy disk the next validation may come before the checkpoint

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Not reported: Tune hears of validations."""

    def validation(self, step: int, scores: Scores) -> None:
        self._session.last = self._unsaved[step] = Report(step, scores.value, scores.ci95)

    def event(self, kind: str, message: str, **fields: object) -> None:
        step = fields.get("step")
        if kind == "checkpoint" and isinstance(step, int) and step < self._steps and step in self._unsaved:
            self._session.report(self._unsaved.pop(step))

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        """Not reported."""

    def close(self) -> None:
        """Nothing to close."""


def _result(report: Report) -> dict[str, Any]:
    return {**result_of(report), "ci95": report.ci95}
