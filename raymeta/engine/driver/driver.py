"""What every part of the driver works with while a run goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from raymeta.engine.driver.schedule import Schedule
from raymeta.engine.driver.state import RunState
from raymeta.engine.executors.base import Executor
from raymeta.engine.stopwatch import Stopwatch
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.trackers.base import Trackers


@dataclass(frozen=True)
class Driver:
    """The state that moves, who computes it, what is due when, who is told, and where the time goes."""

    state: RunState
    blueprint: Blueprint
    executor: Executor
    schedule: Schedule
    tracker: Trackers
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
