"""Runs for other tools: CSV or Parquet tables, TensorBoard events, an MLflow store, offline runs of W&B."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.files import write_problem
from raymeta.runs.listing import dotted
from raymeta.runs.read import Run, require_pandas
from raymeta.runs.tables import frames
from raymeta.runs.tensorboard import TensorBoard

NOT_METRICS = ("step", "attempt", "time")


def export(run: Run, form: str, out: Path) -> list[Path]:
    """Write `run` in the form `form` below `out`; returns what was written.

    Raises `ConfigError` for an unknown form or a folder that is taken, `EnvironmentProblem` for a missing package.
    """
    if form not in FORMS:
        raise ConfigError(f"--format {form}: choose one of {', '.join(FORMS)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        return FORMS[form](run, out)
    except OSError as error:
        raise write_problem(out, error) from error


def _csv(run: Run, out: Path) -> list[Path]:
    return _tables(run, out, "csv")


def _parquet(run: Run, out: Path) -> list[Path]:
    if find_spec("pyarrow") is None:
        raise EnvironmentProblem("Parquet files need pyarrow: pip install pyarrow")
    return _tables(run, out, "parquet")


def _tables(run: Run, out: Path, suffix: str) -> list[Path]:
    """One file for each table; configuration and summary as tables of keys and values."""
    pd = require_pandas()
    tables = frames(run)
    for name, content in (("configuration", dotted(run.config)), ("summary", dotted(run.summary or {}))):
        tables[name] = pd.DataFrame({"key": list(content), "value": [str(v) for v in content.values()]})
    folder = out / run.id
    folder.mkdir(exist_ok=True)
    written = []
    for name, table in tables.items():
        path = folder / f"{name}.{suffix}"
        if suffix == "csv":
            table.to_csv(path, index=False)
        else:
            # Lists of unlike things have no column type; as text every tool reads them.
            table.map(lambda cell: str(cell) if isinstance(cell, list | dict) else cell).to_parquet(path, index=False)
        written.append(path)
    return written


def _tensorboard(run: Run, out: Path) -> list[Path]:
    folder = out / run.id
    if any(folder.glob("events.out.tfevents.*")):
        raise ConfigError(f"{folder} holds TensorBoard events already: choose another -o")
    writer = TensorBoard(folder)
    for step, metrics in metric_rows(run):
        writer.step(step, metrics)
    writer.close()
    return [folder]


def _mlflow(run: Run, out: Path) -> list[Path]:
    """Into `out/mlflow.db`, a SQLite store: MLflow refuses its own file store since version 3.13."""
    mlflow: Any = _require("mlflow")
    store = out / "mlflow.db"
    mlflow.set_tracking_uri(f"sqlite:///{store.resolve()}")
    mlflow.set_experiment("raymeta")
    with mlflow.start_run(run_name=run.name):
        mlflow.set_tags({"raymeta.id": run.id, "raymeta.status": run.status})
        mlflow.log_params({key: str(value)[:500] for key, value in dotted(run.config).items()})
        for step, metrics in metric_rows(run):
            mlflow.log_metrics(metrics, step=step)
        if run.headline:
            mlflow.log_metric(f"test/{run.headline['name']}", float(run.headline["value"]))
    return [store]


def _wandb(run: Run, out: Path) -> list[Path]:
    """As an offline run below `out/wandb`; `wandb sync` sends it when and where its owner wants."""
    os.environ["WANDB_MODE"] = "offline"
    wandb: Any = _require("wandb")
    with wandb.init(project="raymeta", name=run.name, config=run.config, dir=str(out), reinit=True) as session:
        for step, metrics in metric_rows(run):
            session.log(metrics, step=step)
        if run.headline:
            session.summary[f"test/{run.headline['name']}"] = float(run.headline["value"])
    return [out / "wandb"]


def _require(package: str) -> Any:
    if find_spec(package) is None:
        raise EnvironmentProblem(f"this export needs {package}: pip install {package}")
    return __import__(package)


def metric_rows(run: Run) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, metrics) in order of step; what is not finite is left out, since not every tool takes it."""
    for row in run.metrics():
        values = {key: value for key, value in row.items() if key not in NOT_METRICS}
        numbers = {key: float(v) for key, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        if numbers:
            yield row["step"], numbers


FORMS: dict[str, Callable[[Run, Path], list[Path]]] = {
    "csv": _csv,
    "parquet": _parquet,
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
