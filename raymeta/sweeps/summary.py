"""The results of a sweep as files: `summary.json`, `trials.csv`, and `best.yaml`, which `raymeta train -c` runs.

A sweep over domains that are held out has `held_out.csv` besides.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raymeta.config.load import dump
from raymeta.config.schema import RunConfig
from raymeta.runs import layout
from raymeta.runs.provenance import package_version
from raymeta.runs.read import yaml_mapping
from raymeta.runs.write import HEARTBEAT_S, Heartbeat
from raymeta.sweeps.file.sweep import Sweep
from raymeta.sweeps.held_out import as_csv, held_out_table
from raymeta.sweeps.records import Record, Records
from raymeta.sweeps.resources import share_of
from raymeta.sweeps.search.tpe import importance
from raymeta.system.files import json_text, write_json, write_whole
from raymeta.system.reading import TEXT_BYTES, read_json, read_regular
from raymeta.system.remote import Remote
from raymeta.system.signals import unwrapped_interrupts
from raymeta.system.their_code import trust_flag


def trial_config(sweep: Sweep, record: Record, directory: Path) -> RunConfig:
    """The configuration of one trial, as its run directory in `directory/trials` holds it."""
    config = repeatable_config(sweep, record)
    own: dict[str, Any] = {
        "name": f"{sweep.name}-{record.id}",
        "output": str(directory / layout.TRIALS),
        "tags": [*config.tags, "sweep"],
    }
    if config.mirror is not None:  # beside those of other sweeps, whose trials have the same names
        own["mirror"] = (Remote.open(config.mirror) / layout.SWEEPS / directory.name / layout.TRIALS).uri
    return config.model_copy(update={**own, "overlap_validation": False})  # a decision waits for the score


def repeatable_config(sweep: Sweep, record: Record) -> RunConfig:
    """What determines the result of a trial, and the workers it had."""
    config = sweep.config(record.changes[-1]["point"] if record.changes else record.point)
    share = share_of(sweep.file.resources, config)
    asked = share._asdict() if share.workers else {"workers": 0}  # without workers, the rest says nothing to a run
    update: dict[str, Any] = {**asked, "seed": config.seed + record.repeat}
    if not share.gpus_per_worker and config.device == "auto":
        update["device"] = "cpu"  # without a GPU of its own, a trial must not take another's
    return config.model_copy(update=update)


class SweepFiles:
    """Writes what a sweep found so far; every file is whole at any moment."""

    def __init__(self, sweep: Sweep, records: Records, directory: Path) -> None:
        self._sweep, self._records, self._directory = sweep, records, directory
        self._path = directory / layout.SUMMARY
        self._created = self._before().get("created") or datetime.now(UTC).isoformat(timespec="seconds")

    def _before(self) -> dict[str, Any]:
        """The summary of an earlier attempt; empty without one that can be read."""
        try:
            return read_json(self._path)
        except (OSError, ValueError):
            return {}

    @contextmanager
    def kept_up_to_date(self) -> Iterator[None]:
        """While this lasts, `summary.json` is touched every few seconds: without that the sweep reads as lost."""
        self.write("running")
        heartbeat = Heartbeat(self._path, HEARTBEAT_S)
        try:
            with unwrapped_interrupts():
                yield
        except KeyboardInterrupt:
            heartbeat.stop()
            self.write("stopped", "signal")
            raise
        except Exception as error:
            heartbeat.stop()
            self.write("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            heartbeat.stop()

    def write(self, status: str, reason: str = "") -> dict[str, Any]:
        """Write all files; returns the summary."""
        summary = self._summary(status, reason)
        write_json(self._path, summary)
        write_whole(self._directory / layout.TABLE, self._table())
        if summary["held_out"] is not None:
            write_whole(self._directory / layout.HELD_OUT, as_csv(summary["held_out"]))
        if summary["best"] is not None:
            write_whole(self._directory / layout.BEST, self._best_yaml(summary["best"]))
        return summary

    def _summary(self, status: str, reason: str) -> dict[str, Any]:
        sweep, records = self._sweep, self._records
        ranking = records.ranking(sweep.sign(), sweep.steps)
        statuses = ("waiting", "running", "finished", "stopped early", "failed", "stopped")
        return {
            "id": self._directory.name,
            "name": sweep.name,
            "status": status,
            "reason": reason,
            "metric": sweep.metric,
            "mode": sweep.mode,
            "steps": sweep.steps,
            "repeats": sweep.file.repeats,
            "scheduler": sweep.file.scheduler.name,
            "search": sweep.file.search.name,
            "created": self._created,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "raymeta": package_version("raymeta"),
            "counts": {name.replace(" ", "_"): records.count(name) for name in statuses},  # type: ignore[arg-type]
            "total_steps": sum(record.step for record in records.all()),
            "best": self._best(ranking[0]) if ranking else None,
            "ranking": [ranked._asdict() for ranked in ranking],
            "held_out": held_out_table(records.all(), [dimension.key for dimension in sweep.space.all()]),
            "importance": importance(sweep.space, records.history(sweep.sign())),
            "trials": [self._row(record) for record in records.all()],
        }

    def _best(self, ranked: Any) -> dict[str, Any]:
        record = self._records.by_id[ranked.ids[0]]
        return {
            "trial": record.id,
            "trials": ranked.ids,
            "params": ranked.point,
            "value": ranked.score,
            "ci95": ranked.ci95,
            "step": ranked.step,
            "complete": ranked.complete,
            "params_sha256": record.params_sha256,
            "headline": record.headline,
            "run": f"trials/{record.id}",
        }

    def _row(self, record: Record) -> dict[str, Any]:
        last = record.last
        wall_s = record.ended - record.began if record.began is not None and record.ended is not None else None
        return {
            "trial": record.id,
            "status": record.status,
            "reason": record.reason,
            "step": record.step,
            "value": None if last is None else last.score,
            "ci95": None if last is None else last.ci95,
            "seed": self._sweep.first.seed + record.repeat,
            "wall_s": wall_s,
            "params_sha256": record.params_sha256,
            "config": record.changes[-1]["point"] if record.changes else record.point,
        }

    def _table(self) -> str:
        """A row a trial and a column a searched key, for spreadsheets and data frames."""
        keys = list(dict.fromkeys(dimension.key for dimension in self._sweep.space.all()))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        own = ["trial", "status", "step", "value", "ci95", "seed", "wall_s", "params_sha256", "reason"]
        writer.writerow([*own, *keys])
        for record in self._records.all():
            row = self._row(record)
            writer.writerow([row[name] for name in own] + [_cell(row["config"].get(key)) for key in keys])
        return text.getvalue()

    def _best_yaml(self, best: dict[str, Any]) -> str:
        record = self._records.by_id[best["trial"]]
        own = {"output": "results", "name": f"{self._sweep.name}-best"}
        config = repeatable_config(self._sweep, record).model_copy(update=own)
        sha = best["params_sha256"]
        if record.changes:
            equal = "# No single run repeats it, as it went on from parameters of other trials: see summary.json."
        elif sha:
            equal = f"# Repeats params_sha256 {sha}."
        else:
            equal = "# It did not finish, so there is no params_sha256 to repeat."
        return f"# The best configuration of sweep {self._directory.name}, trial {record.id}.\n{equal}\n{dump(config)}"


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else json_text(value)


def trust_of(directory: Path) -> str:
    """` --trust` for a command on a sweep whose files name code."""
    files = (directory / name for name in (layout.SWEEP, layout.BASE))
    return trust_flag([yaml_mapping(read_regular(path, TEXT_BYTES)) for path in files])


def next_commands(directory: Path) -> list[str]:
    """What to do after a sweep."""
    path, trust = shlex.quote(str(directory)), trust_of(directory)
    return [f"raymeta train -c {path}/best.yaml{trust}", f"raymeta runs ls {path}/trials --sort headline"]
