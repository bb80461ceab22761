"""A run as data frames: metrics, validations, test tasks, workers, events. Needs pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raymeta.errors import DataError
from raymeta.runs import layout
from raymeta.runs.read import Run, require_pandas
from raymeta.runs.rows import current_rows
from raymeta.system.files import nan_for_null
from raymeta.system.reading import parse_json, read_regular

if TYPE_CHECKING:
    import pandas as pd


def evaluation(run: Run) -> dict[str, Any]:
    """`eval/test.json`: {headline, by_inner_step, values, settings}; empty as long as there is none."""
    path = run.path / layout.TEST
    try:
        found = nan_for_null(parse_json(read_regular(path)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("values"), list):
        raise DataError(f"{path} holds no scores")
    return found


def frames(run: Run) -> dict[str, pd.DataFrame]:
    """`metrics`, `validations`, `tests` (a row for each test task), `workers` and `events`.

    Raises `EnvironmentProblem` without pandas, `DataError` for a damaged file.
    """
    pd = require_pandas()
    events = run.events()
    validations = current_rows(nan_for_null([event for event in events if event.get("kind") == "validation"]))
    snapshots = [
        {"time": row.get("time"), "step": row.get("step"), **worker}
        for row in run.workers()
        for worker in (row["workers"] if isinstance(row.get("workers"), list) else [])
        if isinstance(worker, dict)
    ]
    scores = evaluation(run).get("values", [])
    return {
        "metrics": run.frame(),
        "validations": pd.DataFrame(validations),
        "tests": pd.DataFrame({"episode": range(len(scores)), "score": scores}),
        "workers": pd.DataFrame(snapshots),
        "events": pd.DataFrame(events),
    }
