"""What the driver of a sweep notes while Tune runs it: records, results, and what people see."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray import tune

from raymeta.sweeps.display import Display
from raymeta.sweeps.records import Record, Records, Report
from raymeta.sweeps.summary import SweepFiles
from raymeta.sweeps.tune.stopping import Interruption, NotPickled, SweepStopper

_WRITE_EVERY_S = 5.0


class TuneCallback(NotPickled, tune.Callback):
    """Turns what Tune says of its trials into records. All calls come from the driver's thread."""

    def __init__(
        self,
        records: Records,
        files: SweepFiles,
        display: Display,
        stopper: SweepStopper,
        interruption: Interruption,
        scheduler: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records, self._files, self._display = records, files, display
        self._stopper, self._interruption, self._scheduler = stopper, interruption, scheduler
        self._clock = clock
        self._written = 0.0
        self._changed = True

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._records.by_id[str(trial)]
        record.status = "running"
        record.began = record.began or self._clock()
        self._save(record)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record = self._records.by_id[str(trial)]
        self._note_exchange(record, trial.config["trial"]["point"])
        if "score" in result and record.add(Report(result["step"], result["score"], result["ci95"])):
            self._display.reported(record)
        record.params_sha256 = result.get("params_sha256")
        record.headline = result.get("headline")
        self._save(record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._records.by_id[str(trial)]
        result = trial.last_result or {}
        if "failed" in result:
            record.status, record.reason = "failed", result["failed"]
        elif "stopped" in result:
            record.status, record.reason = "stopped", result["stopped"]
        elif record.params_sha256 is not None:
            record.status, record.reason = "finished", ""
        else:
            record.status = "stopped early"
            record.reason = self._stopper.reasons.get(record.id, f"by {self._scheduler}")
        self._ended(record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._records.by_id[str(trial)]
        record.status, record.reason = "failed", _last_line(trial.get_error())
        self._ended(record)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._display.draw(self._interruption.left_s())
        if self._changed and self._clock() - self._written >= _WRITE_EVERY_S:
            self._written, self._changed = self._clock(), False
            self._files.write("running")

    def interrupted(self) -> None:
        """Tune is done: trials that it cut off go on when the sweep is resumed."""
        for record in self._records.all():
            if record.status in ("running", "waiting"):
                record.status, record.reason = "stopped", self._interruption.reason or "the sweep ended"
                self._save(record)

    def _note_exchange(self, record: Record, point: dict[str, Any]) -> None:
        before = record.changes[-1]["point"] if record.changes else record.point
        if point != before:
            record.changes.append({"step": record.step, "point": dict(point)})

    def _ended(self, record: Record) -> None:
        record.ended = self._clock()
        self._save(record)
        self._display.ended(record)

    def _save(self, record: Record) -> None:
        self._changed = True
        self._records.save(record)


def _last_line(error: object) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it failed without a message"
