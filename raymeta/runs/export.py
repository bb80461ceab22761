"""Runs for other tools: CSV or Parquet tables, TensorBoard events, an MLflow store, offline runs of W&B."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.runs.read import Run, require_pandas
from raymeta.runs.tables import frames
from raymeta.system.files import write_problem
from raymeta.system.text import dotted
from raymeta.trackers.tensorboard import TensorBoard

NOT_METRICS = ("step", "attempt", "time")
PROJECT = "raymeta"
"""What the experiment of MLflow and the project of W&B are called."""
MLFLOW_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "lost": "FAILED"}
# The most that MLflow takes or gives at once, and the longest tag that W&B takes.
MOST_MLFLOW_RUNS, MOST_MLFLOW_METRICS, MOST_MLFLOW_PARAMS, MOST_WANDB_TAG_LETTERS = 50_000, 1000, 100, 64


def export(run: Run, form: str, out: Path, *, name: str = "") -> list[Path]:
    """Write `run` in the form `form` below `out`, where tables and events get a folder of their own: `name`, or the id.

    Returns what was written.

    Raises `ConfigError` for an unknown form or a folder that is taken, `EnvironmentProblem` for a missing package.
    """
    if form not in FORMS:
        raise ConfigError(f"--format {form}: choose one of {', '.join(FORMS)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        return FORMS[form](run, out, name or run.id)
    except OSError as error:
        raise write_problem(out, error) from error


def _csv(run: Run, out: Path, name: str) -> list[Path]:
    return _tables(run, out / name, "csv")


def _parquet(run: Run, out: Path, name: str) -> list[Path]:
    if find_spec("pyarrow") is None:
        raise EnvironmentProblem("Parquet files need pyarrow: pip install pyarrow")
    return _tables(run, out / name, "parquet")


def _tables(run: Run, folder: Path, suffix: str) -> list[Path]:
    """One file for each table; configuration and summary as tables of keys and values."""
    pd = require_pandas()
    tables = frames(run)
    for name, content in (("configuration", dotted(run.config)), ("summary", dotted(run.summary or {}))):
        tables[name] = pd.DataFrame({"key": list(content), "value": [str(v) for v in content.values()]})
    folder.mkdir(parents=True, exist_ok=True)
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


def _tensorboard(run: Run, out: Path, name: str) -> list[Path]:
    folder = out / name
    if any(folder.glob("events.out.tfevents.*")):
        raise ConfigError(f"{folder} holds TensorBoard events already: choose another -o")
    writer = TensorBoard(folder)
    for step, _, metrics in metric_rows(run):
        writer.step(step, metrics)
    writer.close()
    return [folder]


def _mlflow(run: Run, out: Path, name: str) -> list[Path]:
    """Into `out/mlflow.db`, a SQLite store: MLflow refuses its own file store since version 3.13.

    Through a client of its own, so that neither an active run nor the tracking address of the process is touched, and
    with the times of the run, not those of the export.
    """
    for package in ("sqlalchemy", "alembic"):  # which mlflow-skinny leaves out
        _require(package)
    entities: Any = _require("mlflow", "entities")
    store = out / "mlflow.db"
    client = _require("mlflow").MlflowClient(f"sqlite:///{store.resolve()}")
    known = client.get_experiment_by_name(PROJECT)
    folder = (out / "mlartifacts").resolve().as_uri()
    number = known.experiment_id if known else client.create_experiment(PROJECT, artifact_location=folder)
    if any(r.data.tags.get("raymeta.id") == name for r in client.search_runs([number], max_results=MOST_MLFLOW_RUNS)):
        raise ConfigError(f"{store} holds {name} already: choose another -o")
    tags = {"raymeta.id": name, "raymeta.status": run.status, "raymeta.tags": ", ".join(map(str, _tags(run)))}
    began, ended = (_milliseconds(run.info.get(key)) for key in ("created", "updated"))
    made = client.create_run(number, start_time=began, tags=tags, run_name=run.name).info.run_id
    params = [entities.Param(_mlflow_key(key), str(value)) for key, value in dotted(run.config).items()]
    metrics = [
        entities.Metric(_mlflow_key(name), value, at, step)
        for step, at, values in metric_rows(run)
        for name, value in values.items()
    ]
    metrics += [
        entities.Metric(name, v, ended, int(run.info.get("step") or 0)) for name, v in final_scores(run).items()
    ]
    for first in range(0, len(params), MOST_MLFLOW_PARAMS):
        client.log_batch(made, params=params[first : first + MOST_MLFLOW_PARAMS])
    for first in range(0, len(metrics), MOST_MLFLOW_METRICS):
        client.log_batch(made, metrics=metrics[first : first + MOST_MLFLOW_METRICS])
    if run.status != "running":
        client.set_terminated(made, MLFLOW_STATUS[run.status], ended)
    return [store]


def _mlflow_key(key: str) -> str:
    """Only these letters may stand in a name there."""
    return re.sub(r"[^\w.\-/ :]", "_", key)


def _wandb(run: Run, out: Path, name: str) -> list[Path]:
    """As an offline run below `out/wandb`; `wandb sync` sends it when and where its owner wants.

    What W&B would note of this process and its machine (code, packages, git, load) is left out: it is not the run's.
    """
    wandb: Any = _require("wandb")
    wanted = {
        "silent": True, "console": "off", "disable_git": True, "disable_code": True, "save_code": False,
        "x_disable_stats": True, "x_disable_meta": True, "x_disable_machine_info": True, "x_save_requirements": False,
        "host": str(run.info.get("host") or ""),
    }  # fmt: skip
    settings = wandb.Settings(**{key: value for key, value in wanted.items() if key in wandb.Settings.model_fields})
    session = wandb.init(
        project=PROJECT,
        name=run.name,
        config={**run.config, "raymeta_id": name, "raymeta_status": run.status},
        tags=[str(tag)[:MOST_WANDB_TAG_LETTERS] for tag in _tags(run)],
        dir=str(out),
        mode="offline",
        reinit="create_new",  # a run that is active in this process stays as it is
        settings=settings,
    )
    for step, at, metrics in metric_rows(run):
        session.log({**metrics, "_timestamp": at / 1000}, step=step)
    session.summary.update(final_scores(run))
    session.finish(exit_code=0 if run.status in ("finished", "stopped") else 1)
    return [out / "wandb"]


def _require(package: str, part: str = "") -> Any:
    found = find_spec(package)
    if found is None or found.origin is None:  # a folder of that name, perhaps of an earlier export, is no package
        raise EnvironmentProblem(f"this export needs {package}: pip install {package}")
    return import_module(f"{package}.{part}" if part else package)


def metric_rows(run: Run) -> Iterator[tuple[int, int, dict[str, float]]]:
    """(step, milliseconds since 1970, metrics) in order of step; what is not finite is left out."""
    for row in run.metrics():
        values = {key: value for key, value in row.items() if key not in NOT_METRICS}
        numbers = {key: float(v) for key, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        if numbers:
            yield row["step"], round(1000 * row["time"]), numbers


def final_scores(run: Run) -> dict[str, float]:
    """The headline and the half-width of its interval under the names of metrics; empty as long as there is none."""
    found = run.headline
    if not found:
        return {}
    scores = {f"test/{found['name']}": found["value"], f"test/{found['name']}_ci95": found.get("ci95")}
    return {name: float(v) for name, v in scores.items() if isinstance(v, int | float) and math.isfinite(v)}


def _tags(run: Run) -> list[object]:
    found = run.info.get("tags")
    return found if isinstance(found, list) else []


def _milliseconds(moment: object) -> int | None:
    """An ISO time in milliseconds since 1970; None for anything else."""
    try:
        return round(1000 * datetime.fromisoformat(str(moment)).timestamp())
    except ValueError:
        return None


FORMS: dict[str, Callable[[Run, Path, str], list[Path]]] = {
    "csv": _csv,
    "parquet": _parquet,
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
