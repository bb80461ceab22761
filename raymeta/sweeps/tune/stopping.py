"""When a trial, or the whole sweep, stops before its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from raymeta.sweeps.file.schema import StopRules
from raymeta.sweeps.records import Records
from raymeta.sweeps.tune.trial import STOP_FILE

_PATIENCE_S = 90.0
"""How long running trials may take to save and stop."""


class Interruption:
    """Why the sweep stops, if it does; trials read it from a file, wherever they run."""

    def __init__(self, directory: Path, time_limit_s: float | None, clock: Callable[[], float] = time.monotonic):
        self._file = directory / STOP_FILE
        self._file.unlink(missing_ok=True)  # of an earlier attempt
        self._clock = clock
        self._began = clock()
        self._limit_s = time_limit_s
        self._asked_at = 0.0
        self.reason: str | None = None

    def ask(self, reason: str) -> None:
        """Let all trials save and stop."""
        if self.reason is None:
            self.reason, self._asked_at = reason, self._clock()
            self._file.write_text(reason)

    def look(self) -> None:
        """Ask for the end once the time is over."""
        if self._limit_s is not None and self._clock() - self._began >= self._limit_s:
            self.ask("time_limit")

    @property
    def overdue(self) -> bool:
        """Whether trials had their time to stop."""
        return self.reason is not None and self._clock() - self._asked_at > _PATIENCE_S

    def left_s(self) -> float | None:
        """Seconds until the time limit."""
        return None if self._limit_s is None else max(0.0, self._limit_s - (self._clock() - self._began))

    def close(self) -> None:
        self._file.unlink(missing_ok=True)


class NotPickled:
    """Tune pickles what it is given, to restore an experiment; a sweep is resumed from its records instead."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class SweepStopper(NotPickled, tune.Stopper):
    """The stop rules of a sweep file, and the end of the sweep by a signal or the time limit."""

    def __init__(self, rules: StopRules, sign: int, records: Records, interruption: Interruption) -> None:
        self._rules, self._sign, self._records, self._interruption = rules, sign, records, interruption
        self.reasons: dict[str, str] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial that reports `result` has done enough."""
        score = result.get("score")
        if score is None or result.get("done"):
            return False
        reason = self._reason(self._records.by_id[result["id"]].scores_with(result["step"], score))
        if reason is not None:
            self.reasons[result["id"]] = reason
        return reason is not None

    def _reason(self, scores: list[float]) -> str | None:
        rules = self._rules
        turned = [self._sign * score if math.isfinite(score) else -math.inf for score in scores]
        if rules.score is not None and turned[-1] >= self._sign * rules.score:
            return f"its score reached {rules.score:g}"
        if rules.patience is not None and len(turned) - 1 - turned.index(max(turned)) >= rules.patience:
            return f"no better score in {rules.patience} reports"
        return None

    def stop_all(self) -> bool:
        self._interruption.look()
        running = self._records.count("running")
        return self._interruption.reason is not None and (running == 0 or self._interruption.overdue)
