"""What a sweep knows of its trials, as one plain JSON file a trial: `records/0003.json`. Enough to go on from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.errors import DataError
from raymeta.runs import layout
from raymeta.runs.read import Run
from raymeta.sweeps.file.space import Point, Tried
from raymeta.system.files import write_json
from raymeta.system.reading import parse_json, read_regular
from raymeta.trackers.scores import OF_GOAL, SCORES

TrialStatus = Literal["waiting", "running", "finished", "stopped early", "failed", "stopped"]
ENDED: tuple[TrialStatus, ...] = ("finished", "stopped early", "failed")
"""These trials are not run again; `stopped` ones (the sweep was interrupted) go on when it is resumed."""

STUDENT_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % quantiles of Student's t with 1 to 30 degrees of freedom; the last one serves for more."""


class Report(NamedTuple):
    """One validation of a trial, with the half-width of its 95 % interval over episodes."""

    step: int
    score: float
    ci95: float


@dataclass
class Record:
    """One trial: a configuration with a seed."""

    id: str
    index: int
    repeat: int
    point: Point
    status: TrialStatus = "waiting"
    reason: str = ""
    reports: list[Report] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)  # {step, point} where parameters were exchanged
    params_sha256: str | None = None
    headline: dict[str, Any] | None = None
    began: float | None = None
    ended: float | None = None

    @property
    def last(self) -> Report | None:
        return self.reports[-1] if self.reports else None

    @property
    def step(self) -> int:
        return self.reports[-1].step if self.reports else 0

    def scores_with(self, step: int, score: float) -> list[float]:
        """All scores before `step`, and this one."""
        return [report.score for report in self.reports if report.step < step] + [score]

    def add(self, report: Report) -> bool:
        """Note a report; one that a trial makes again after a crash replaces what came from there on."""
        if self.last is not None and self.last == report:
            return False
        self.reports = [r for r in self.reports if r.step < report.step] + [report]
        return True


def _report(step: int, score: float | None, ci95: float | None) -> Report:
    """A report as it stands in a file, where null is no finite number."""
    return Report(step, math.nan if score is None else score, math.inf if ci95 is None else ci95)


def _record(content: Any, name: str) -> Record:
    """A record as it stands in a file. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    content = layout.read_format(content)
    record = Record(**{**content, "reports": [_report(*report) for report in content["reports"]]})
    if record.id != name or not (isinstance(record.index, int) and isinstance(record.repeat, int)):
        raise ValueError(f"it says that it is trial {record.id}")
    if record.status not in get_args(TrialStatus) or not isinstance(record.point, dict):
        raise ValueError(f"its status is {record.status!r}, its point {record.point!r:.80}")
    if not all(isinstance(value, int | float) for report in record.reports for value in report):
        raise ValueError("its reports are no numbers")
    return record


class Ranked(NamedTuple):
    """A configuration with its score over its repeats."""

    number: int
    ids: list[str]
    point: Point
    score: float
    ci95: float
    step: int
    complete: bool


def trial_id(index: int, repeat: int, repeats: int) -> str:
    """`0003`, or `0003-2` for the third of several repeats."""
    return f"{index:04d}" + (f"-{repeat}" if repeats > 1 else "")


class Records:
    """All trials of a sweep by id, each in its own file."""

    def __init__(self, directory: Path, repeats: int) -> None:
        self.directory = directory
        self.repeats = repeats
        self.by_id: dict[str, Record] = {}

    @classmethod
    def load(cls, directory: Path, repeats: int) -> Records:
        """Read them back; a repeat whose file is gone waits for its turn. Raises `DataError` for a damaged file."""
        records = cls(directory, repeats)
        for path in sorted(directory.glob("*.json")):
            try:
                record = _record(parse_json(read_regular(path)), path.stem)
            except layout.NewerFormat as error:
                raise DataError(f"{path} cannot be read: {error}") from error
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise DataError(f"{path} cannot be read: {error}. Delete it to run this trial again") from error
            records.by_id[record.id] = record
        for group in records.groups():
            for repeat in {*range(repeats)} - {record.repeat for record in group}:
                records.new(group[0].index, repeat, group[0].point)
        return records

    def new(self, index: int, repeat: int, point: Point) -> Record:
        """A trial that waits for its turn; known to the files before it starts."""
        record = Record(trial_id(index, repeat, self.repeats), index, repeat, point)
        self.by_id[record.id] = record
        self.save(record)
        return record

    def save(self, record: Record) -> None:
        self.directory.mkdir(exist_ok=True)
        write_json(self.directory / f"{record.id}.json", layout.numbered(asdict(record)))

    def catch_up(self, trials: Path) -> None:
        """Take in what unfinished trials of a killed sweep had reached: the reports up to their last checkpoint."""
        for record in self.all():
            folder = trials / record.id
            if record.status in ENDED or not (folder / layout.RUN).is_file():
                continue
            step = last_checkpoint_step(folder)
            reports = [report for report in reports_of(Run.open(folder)) if report.step <= step]
            if not record.changes and reports:
                record.reports = reports
                self.save(record)

    def all(self) -> list[Record]:
        """In the order of their configurations."""
        return sorted(self.by_id.values(), key=lambda record: (record.index, record.repeat))

    def count(self, *statuses: TrialStatus) -> int:
        return sum(record.status in statuses for record in self.by_id.values())

    def history(self, sign: int) -> list[Tried]:
        """Configurations in the order they were proposed, scores turned so that larger is better."""
        tried = []
        for group in self.groups():
            ended = len(group) == self.repeats and all(record.status in ENDED for record in group)
            tried.append(Tried(group[0].point, _score(group, sign) if ended else None))
        return tried

    def next_index(self) -> int:
        """The configuration to announce next: one whose records were deleted, else the one after the last."""
        groups = self.groups()
        return next((i for i, group in enumerate(groups) if group[0].index != i), len(groups))

    def groups(self) -> list[list[Record]]:
        """The repeats of each configuration."""
        groups: dict[int, list[Record]] = {}
        for record in self.all():
            groups.setdefault(record.index, []).append(record)
        return list(groups.values())

    def ranking(self, sign: int, steps: int) -> list[Ranked]:
        """Configurations with scores, best first; those whose trials all came to the end stand before the others."""
        ranked = []
        for group in self.groups():
            reports = [record.last for record in group if record.last is not None]
            if len(reports) < len(group) or any(not math.isfinite(report.score) for report in reports):
                continue
            complete = len(group) == self.repeats and all(record.status == "finished" for record in group)
            score, ci95 = mean_and_interval(reports)
            point = group[0].changes[-1]["point"] if group[0].changes else group[0].point
            step = min(report.step for report in reports)
            ranked.append(Ranked(group[0].index, [r.id for r in group], point, score, ci95, step, complete))
        return sorted(ranked, key=lambda r: (not r.complete, -sign * r.score, r.number))


def reports_of(run: Run) -> list[Report]:
    """All validations of a run."""
    rows = run.metrics()
    names = [SCORES[name].column for name in OF_GOAL.values()]
    return [Report(row["step"], row[n], row[f"{n}_ci95"]) for row in rows for n in names if n in row]


def last_checkpoint_step(folder: Path) -> int:
    """The step from which a run would go on; 0 without a checkpoint."""
    step = str(CheckpointStore(folder / layout.CHECKPOINTS).index().get("last")).removeprefix("step-")
    return int(step) if step.isdecimal() else 0


def _score(group: Sequence[Record], sign: int) -> float:
    reports = [record.last for record in group if record.status != "failed" and record.last is not None]
    if len(reports) < len(group):
        return -math.inf
    score = mean_and_interval(reports)[0]
    return sign * score if math.isfinite(score) else -math.inf


def mean_and_interval(reports: Sequence[Report]) -> tuple[float, float]:
    """Mean over repeats and half-width of its 95 % interval (Student's t); a single trial's own over its episodes."""
    if len(reports) == 1:
        return reports[0].score, reports[0].ci95
    scores = [report.score for report in reports]
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
    t = STUDENT_T[min(len(scores) - 1, len(STUDENT_T)) - 1]
    return mean, t * deviation / math.sqrt(len(scores))
