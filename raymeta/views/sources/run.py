"""What pages need of one run: bounded in size, read again only where a file has changed, calm where one is damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from raymeta.runs import layout
from raymeta.runs.read import Run, yaml_mapping
from raymeta.runs.rows import current_rows
from raymeta.runs.tail import Tail, thin
from raymeta.system.files import nan_for_null
from raymeta.system.text import dotted
from raymeta.trackers.axes import Axis, axis_of
from raymeta.trackers.scores import values_of
from raymeta.views.figures.style import is_number
from raymeta.views.sources.files import Row, Stamped, json_object, problems_of, stamp_of

POINTS = 700
"""Points of a curve that are sent; more cannot be told apart on a screen."""
MAX_COMMAND = 4_000
"""Letters of the command lines that are shown."""


class RunSource:
    """One run directory as pages see it. Any file may be absent, torn, huge or gone the next moment."""

    def __init__(self, path: Path, name: str = "", place: str = "") -> None:
        """`name` is the id where that is not the folder's name, `place` the URI of a run of which `path` is a copy."""
        self.path = path
        self.place = place or str(path)
        self.id = name or path.resolve().name
        self._info = Stamped(path / layout.RUN, lambda data: layout.read_format(json_object(data)))
        self._config = Stamped(path / layout.CONFIG, yaml_mapping)
        self._summary = Stamped(path / layout.SUMMARY, json_object)
        self._weights = Stamped(path / layout.WEIGHTS, json_object)
        self._optimizers = Stamped(path / layout.OPTIMIZERS, json_object)
        self._evaluation = Stamped(path / layout.TEST, json_object)
        self._environment = Stamped(path / layout.ENVIRONMENT, json_object)
        self._command = Stamped(path / layout.COMMAND, lambda data: {"lines": data.decode(errors="replace")})
        self._tails = {name: Tail(path / name) for name in (layout.METRICS, layout.EVENTS, layout.WORKERS)}

    @property
    def run(self) -> Run:
        """The run with its present `info`; only what does not read whole files is to be asked of it."""
        info = self._info.value()
        return Run(self.path, info if info else {"reason": self._info.problem or "run.json is gone"})

    @property
    def exists(self) -> bool:
        return stamp_of(self._info.path) is not None

    @property
    def config(self) -> Row:
        """Dotted keys."""
        return dotted(self._config.value())

    @property
    def summary(self) -> Row:
        return self._summary.value()

    @property
    def headline(self) -> Row | None:
        """{name, value, ci95, episodes, split, better} with numbers where numbers belong, or None."""
        found = self.summary.get("headline")
        if not isinstance(found, dict) or not is_number(found.get("value")):
            return None
        ci95 = found.get("ci95")
        return {**found, "name": str(found.get("name")), "ci95": ci95 if isinstance(ci95, int | float) else None}

    @property
    def evaluation(self) -> Row:
        """`eval/test.json`; empty unless its lists hold numbers."""
        found = self._evaluation.value()
        by_step, values = (nan_for_null(found.get(key)) for key in ("by_inner_step", "values"))
        whole = isinstance(by_step, dict) and all(numbers(v) for v in by_step.values()) and numbers(values)
        if not whole or not isinstance(found.get("headline"), dict):
            return {}
        return {**found, "by_inner_step": by_step, "values": values}

    @property
    def weights(self) -> Row:
        """`eval/weights.json`; empty unless it holds numbers, as many of each."""
        found = {key: self._weights.value().get(key) for key in ("loss", "weight", "wrong")}
        lists = [value for value in found.values() if isinstance(value, list)]
        whole = len(lists) == 3 and len({len(values) for values in lists}) == 1
        return found if whole and numbers(found["loss"]) and numbers(found["weight"]) else {}

    @property
    def optimizers(self) -> Row:
        """`eval/optimizers.json`; empty unless its curves are lists of numbers and its rates are numbers."""
        found = self._optimizers.value()
        losses, rates = nan_for_null(found.get("losses")), found.get("rates")
        if not isinstance(losses, dict) or not isinstance(rates, dict) or not is_number(found.get("problems")):
            return {}
        whole = losses and all(numbers(values) for values in losses.values()) and all(map(is_number, rates.values()))
        return {**found, "losses": losses} if whole else {}

    @property
    def environment(self) -> Row:
        """Versions, devices, commit."""
        return self._environment.value()

    @property
    def command(self) -> str:
        """The command lines of the run, one for each attempt."""
        return str(self._command.value().get("lines", "")).strip()[:MAX_COMMAND]

    @property
    def axis(self) -> Axis | None:
        """What the method's scores of a task stand over; None where there is one score, or none is known yet."""
        headline, test = self.headline, self.evaluation
        if headline and test:
            settings = test.get("settings")
            name = settings.get("axis") if isinstance(settings, dict) else None
            return axis_of(name, values_of(headline["name"], test["by_inner_step"]) or [])
        validations = self.validations()
        return axis_of(validations[-1].get("axis"), validations[-1]["per_step"]) if validations else None

    def metrics(self, limit: int = POINTS) -> list[Row]:
        """One row a step of the run as it went on; an even choice of about `limit` where there are more."""
        rows = thin(current_rows(self._tails[layout.METRICS].rows()), limit)
        return [{key: _number(value) for key, value in row.items()} for row in rows]

    @property
    def rate(self) -> object:
        """Tasks per second in the newest row that tells."""
        rows = reversed(self._tails[layout.METRICS].rows())
        return next((row["tasks_per_s"] for row in rows if "tasks_per_s" in row), None)

    def events(self) -> list[Row]:
        return self._tails[layout.EVENTS].rows()

    def validations(self) -> list[Row]:
        """{step, name, value, ci95, per_step} of the run as it went on, in order of step."""
        found = [row for row in self.events() if row.get("kind") == "validation" and _is_validation(row)]
        return current_rows([row | _restored(row) for row in found])

    def workers(self) -> list[Row]:
        """Snapshots {time, step, workers: [{name, node, pid, tasks, tasks_per_s, restarts}]}."""
        rows = self._tails[layout.WORKERS].rows()
        return [
            {**row, "workers": [w for w in row["workers"] if isinstance(w, dict)]}
            for row in rows
            if isinstance(row.get("workers"), list) and isinstance(row.get("step"), int)
        ]

    @property
    def problems(self) -> list[str]:
        """What of the listed files cannot be shown, in words."""
        return problems_of(self._info, self._config, self._summary)

    @property
    def evaluation_problems(self) -> list[str]:
        return problems_of(self._evaluation)

    @property
    def version(self) -> str:
        """Changes whenever a page of this run would."""
        # The heart touches run.json, so of this file the content counts, and the time where it makes the run lost.
        files = (self._config, self._summary, self._evaluation, self._environment, self._command)
        paths = [file.path for file in files]
        paths += [tail.path for tail in self._tails.values()]
        text = repr([[stamp_of(path) for path in paths], self.run.info, self.run.status])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def numbers(value: object) -> bool:
    """Whether `value` is a list of numbers, NaN among them, and not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, int | float) for v in value)


def _number(value: object) -> Any:
    """A metric as it can be drawn: null stands for NaN, and what is no number at all is left out."""
    return float("nan") if value is None else value if isinstance(value, int | float) else None


def _restored(row: Row) -> Row:
    return {key: nan_for_null(row.get(key)) for key in ("value", "ci95", "per_step")}


def _is_validation(row: Row) -> bool:
    restored = _restored(row)
    scalars = all(isinstance(restored[key], int | float) for key in ("value", "ci95"))
    return isinstance(row.get("step"), int) and scalars and numbers(restored["per_step"])
