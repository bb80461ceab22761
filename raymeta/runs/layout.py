"""The names of all files of a run and of a sweep, and the numbers of their formats.

A number counts the forms that a file has had. A run without one is from before there were numbers, and reads as 0. What
an older number holds otherwise is put right where it is read, by `read_format` with a reader for each number; a number
of a newer raymeta is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

RUN: Final = "run.json"
CONFIG: Final = "config.yaml"
COMMAND: Final = "command.txt"
ENVIRONMENT: Final = "env.json"
DATA: Final = "data.json"
METRICS: Final = "metrics.jsonl"
EVENTS: Final = "events.jsonl"
WORKERS: Final = "workers.jsonl"
SUMMARY: Final = "summary.json"
LOCK: Final = ".lock"
CHECKPOINTS: Final = "checkpoints"
STATE: Final = "state.json"
INDEX: Final = "index.json"
EVALUATIONS: Final = "eval"
TEST: Final = f"{EVALUATIONS}/test.json"
EPISODES: Final = f"{EVALUATIONS}/episodes"
WEIGHTS: Final = f"{EVALUATIONS}/weights.json"
OPTIMIZERS: Final = f"{EVALUATIONS}/optimizers.json"
TENSORBOARD: Final = "tb"
REPORT: Final = "report.html"

SWEEPS: Final = "sweeps"
"""The folder of all sweeps, beside the runs."""
SWEEP: Final = "sweep.yaml"
BASE: Final = "base.yaml"
BEST: Final = "best.yaml"
TABLE: Final = "trials.csv"
HELD_OUT: Final = "held_out.csv"
RECORDS: Final = "records"
TRIALS: Final = "trials"
STOP: Final = ".stop"

HIGHLIGHTS: Final = ("algorithm.name", "tasks.name", "model.name")
"""Options by which people tell runs apart."""
DECISIVE: Final = (CONFIG, DATA)
"""These decide a run's result, and `run.json` has their hashes."""
PLAIN: Final = (RUN, CONFIG, COMMAND, ENVIRONMENT, DATA, METRICS, EVENTS, WORKERS, SUMMARY, TEST)
"""The files of a run that a person reads."""
OF_SWEEP: Final = (SUMMARY, SWEEP, TABLE)
"""Any of these makes a folder a sweep's."""

FORMAT: Final = 1
"""Of `run.json`, of `state.json` in a checkpoint, and of the records of a sweep."""

Content = dict[str, Any]
Reader = Callable[[Content], Content]


class NewerFormat(ValueError):
    """A newer raymeta made this file."""


def _as_it_is(content: Content) -> Content:
    return content


READERS: Final[Mapping[int, Reader]] = {0: _as_it_is, 1: _as_it_is}
"""From the content in the form of a number to that in the form of today. 1 is 0 with its number."""


def numbered(content: Mapping[str, Any]) -> Content:
    """`content` with the number of today's format, which comes first in the file."""
    return {"format": FORMAT, **content}


def read_format(content: Mapping[str, Any]) -> Content:
    """`content` in the form of today, without its number.

    Raises `NewerFormat` for a number of later versions, another `ValueError` for what is no number.
    """
    number = content.get("format", 0)
    if type(number) is not int or number < 0:
        raise ValueError(f"its format {number!r:.80} is no number of a format")
    if number not in READERS:
        raise NewerFormat(f"it was made by a newer raymeta (format {number}, this one knows {FORMAT}): update raymeta")
    return READERS[number]({key: value for key, value in content.items() if key != "format"})
