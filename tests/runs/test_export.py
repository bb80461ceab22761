"""`runs compare` and `runs export`: the numbers that leave are those of the run."""

from __future__ import annotations

import json
import os
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import raymeta
from raymeta.api.evaluate import paired_difference
from raymeta.runs.__main__ import main
from raymeta.runs.listing import told_apart
from raymeta.runs.read import Run
from raymeta.system.text import dotted

LookedAt = tuple[Path, dict[str, Any]]


def test_compare_pairs_what_can_be_paired(looked_at: LookedAt, capsys: pytest.CaptureFixture[str]) -> None:
    runs = looked_at[1]
    paths = [str(runs[name].path) for name in ("maml0", "maml1", "sine", "lost")]
    assert main(["compare", *paths, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = (raymeta.meta_test(runs[name], episodes=20) for name in ("maml0", "maml1"))
    (row,) = found["paired"]["rows"]
    assert [row["difference"], row["ci95"]] == pytest.approx(paired_difference(first, second))
    assert found["paired"]["left_out"] == [runs["sine"].id]
    assert {"seed", "steps", "tasks.name"} <= {row["key"] for row in found["differences"]}
    assert main(["compare", *paths]) == 0
    text = capsys.readouterr().out
    assert f"{runs['maml1'].id} − {runs['maml0'].id}: difference in accuracy" in text
    assert f"{runs['sine'].id}: scored on other test tasks" in text
    assert main(["compare", paths[0], paths[0]]) == 2


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_hold_every_row(form: str, looked_at: LookedAt, tmp_path: Path) -> None:
    for name in ("maml0", "sine", "failed", "lost", "hostile"):
        run: Run = looked_at[1][name]
        assert main(["export", str(run.path), "-o", str(tmp_path), "--format", form]) == 0
        read = pd.read_csv if form == "csv" else pd.read_parquet
        metrics = tmp_path / run.id / f"metrics.{form}"
        if run.metrics():
            assert read(metrics)["step"].tolist() == [row["step"] for row in run.metrics()]  # type: ignore[operator]
        keys = read(tmp_path / run.id / f"configuration.{form}")["key"].tolist()  # type: ignore[operator]
        assert "algorithm.name" in keys


def test_tensorboard_events_hold_the_metrics(looked_at: LookedAt, tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    run: Run = looked_at[1]["maml0"]
    assert main(["export", str(run.path), "-o", str(tmp_path), "--format", "tensorboard"]) == 0
    (path,) = (tmp_path / run.id).glob("events.out.tfevents.*")
    data, losses = path.read_bytes(), {}
    while data:  # records: length, its checksum, the event, its checksum
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        for value in event.summary.value:
            if value.tag == "train/query_loss":
                losses[event.step] = value.simple_value
        data = data[16 + size :]
    assert losses == pytest.approx({row["step"]: row["train/query_loss"] for row in run.metrics()})
    assert main(["export", str(run.path), "-o", str(tmp_path), "--format", "tensorboard"]) == 2


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_an_export_names_the_package_that_is_missing(
    package: str, looked_at: LookedAt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    assert main(["export", str(looked_at[1]["maml0"].path), "-o", str(tmp_path), "--format", package]) == 3
    assert f"pip install {package}" in capsys.readouterr().err


def test_mlflow_gives_back_what_was_exported(looked_at: LookedAt, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="MLflow's SQLite store needs sqlalchemy")
    runs = {name: looked_at[1][name] for name in ("maml0", "hostile", "failed", "lost")}
    paths = [str(run.path) for run in runs.values()]
    assert main(["export", *paths, "-o", str(tmp_path), "--format", "mlflow"]) == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'raymeta'")
    assert experiment.artifact_location.startswith(tmp_path.as_uri())
    found = {r.data.tags["raymeta.id"]: r for r in client.search_runs([experiment.experiment_id])}
    assert {runs[name].id: status for name, status in MLFLOW.items()} == {k: r.info.status for k, r in found.items()}
    run: Run = runs["maml0"]
    shown = found[run.id]
    losses = client.get_metric_history(shown.info.run_id, "train/query_loss")
    assert [(m.step, m.value) for m in losses] == [(row["step"], row["train/query_loss"]) for row in run.metrics()]
    assert [m.timestamp for m in losses] == [round(1000 * row["time"]) for row in run.metrics()]
    assert run.headline is not None
    assert shown.data.metrics["test/accuracy"] == run.headline["value"]
    assert shown.data.metrics["test/accuracy_ci95"] == run.headline["ci95"]
    assert shown.data.params == {key: str(value) for key, value in dotted(run.config).items()}
    assert not [key for key in shown.data.tags if key.startswith("mlflow.source")]  # of the exporting process
    assert found[runs["hostile"].id].info.run_name == runs["hostile"].name
    assert main(["export", paths[0], "-o", str(tmp_path), "--format", "mlflow"]) == 2
    assert mlflow.active_run() is None


MLFLOW = {"maml0": "FINISHED", "hostile": "FINISHED", "failed": "FAILED", "lost": "FAILED"}


def test_an_offline_run_of_wandb_holds_what_was_exported(looked_at: LookedAt, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    run: Run = looked_at[1]["maml0"]
    paths = [str(looked_at[1][name].path) for name in ("maml0", "hostile", "failed")]
    for path in paths:
        assert main(["export", path, "-o", str(tmp_path), "--format", "wandb"]) == 0
    ours, hostile, failed = (
        written_by_wandb(tmp_path)[looked_at[1][name].id] for name in ("maml0", "hostile", "failed")
    )
    rows = [{i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in r.item} for r in ours["history"]]
    assert [row["_step"] for row in rows] == [row["step"] for row in run.metrics()]
    for name in ("train/query_loss", "val/accuracy"):
        there = {row["_step"]: row[name] for row in rows if name in row}
        assert there == pytest.approx({row["step"]: row[name] for row in run.metrics() if name in row}, abs=0)
    assert [row["_timestamp"] for row in rows] == pytest.approx([row["time"] for row in run.metrics()], abs=1e-3)
    assert run.headline is not None
    updates = {u.key or "/".join(u.nested_key): json.loads(u.value_json) for r in ours["summary"] for u in r.update}
    assert updates["test/accuracy"] == run.headline["value"]
    config = wandb_config(ours)
    assert config["algorithm"] == run.config["algorithm"]
    assert (ours["exit"][0].exit_code, failed["exit"][0].exit_code) == (0, 1)
    assert hostile["run"][0].display_name == looked_at[1]["hostile"].name
    assert ours["run"][0].host == run.info["host"]
    assert not ours.get("stats")
    assert not [path for path in tmp_path.rglob("*") if path.name in ("requirements.txt", "wandb-metadata.json")]
    assert "WANDB_MODE" not in os.environ


def written_by_wandb(folder: Path) -> dict[str, dict[str, list[Any]]]:
    """Records of all runs in a folder by the ids of our runs, once W&B's own process has written the last of them."""
    end = time.monotonic() + 60
    while True:
        found = [wandb_records(path) for path in folder.glob("wandb/offline-run-*/*.wandb")]
        if all("exit" in records for records in found):
            return {wandb_config(records)["raymeta_id"]: records for records in found}
        assert time.monotonic() < end
        time.sleep(0.1)


def wandb_config(records: dict[str, list[Any]]) -> dict[str, Any]:
    return {u.key: json.loads(u.value_json) for u in records["run"][0].config.update}


def wandb_records(path: Path) -> dict[str, list[Any]]:
    """The records of a `.wandb` file by kind: blocks of 32 KiB, in them parts of records behind heads of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part = path.read_bytes(), 7, b""
    found: dict[str, list[Any]] = {}
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, place = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if place in (1, 4):  # whole, or the last part
            record = Record.FromString(part)
            kind = record.WhichOneof("record_type")
            found.setdefault(kind, []).append(getattr(record, kind))
            part = b""
    return found


def namesakes(folder: Path, runs: dict[str, Run]) -> list[str]:
    """Two runs of the same id, as trials of two sweeps are."""
    paths = [folder / sweep / "trials" / "0000" for sweep in ("first", "second")]
    for path, name in zip(paths, ("maml0", "maml1"), strict=True):
        shutil.copytree(runs[name].path, path)
    return [str(path) for path in paths]


def test_runs_of_the_same_id_are_told_apart(
    looked_at: LookedAt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = namesakes(tmp_path / "in", looked_at[1])
    labels = ["first/trials/0000", "second/trials/0000"]
    assert main(["compare", *paths, paths[0], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in found["runs"]] == labels
    assert [row["label"] for row in found["paired"]["rows"]] == labels[1:]
    assert {row["key"]: row["values"] for row in found["differences"]}["seed"] == dict(zip(labels, (0, 1), strict=True))
    assert main(["compare", *paths]) == 0
    assert "option  first/trials/0000  second/trials/0000" in capsys.readouterr().out
    assert main(["export", *paths, "-o", str(tmp_path / "out")]) == 0
    for label, name in zip(labels, ("maml0", "maml1"), strict=True):
        rows = pd.read_csv(tmp_path / "out" / label / "metrics.csv")["train/query_loss"]
        assert rows.tolist() == pytest.approx([row["train/query_loss"] for row in looked_at[1][name].metrics()])
    assert told_apart([Run.open(Path(path)) for path in [*paths, str(looked_at[1]["sine"].path)]]) == [
        *labels, looked_at[1]["sine"].id,
    ]  # fmt: skip


def test_damaged_rows_cost_themselves_only(looked_at: LookedAt, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(looked_at[1]["sine"].path, copy)
    with open(copy / "workers.jsonl", "a") as file:
        file.write('{"step": 1, "workers": 3}\n{"step": 2, "workers": ["a", {"name": "b", "tasks": 1}]}\n')
    assert main(["export", str(copy), "-o", str(tmp_path / "out")]) == 0
    assert pd.read_csv(tmp_path / "out" / "run" / "workers.csv")["name"].tolist()[-1] == "b"


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_folder_named_like_a_tracker_is_no_package(
    package: str, looked_at: LookedAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if (found := find_spec(package)) is not None and found.origin is not None:
        pytest.skip(f"{package} is installed")
    (tmp_path / package).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["export", str(looked_at[1]["sine"].path), "-o", str(tmp_path), "--format", package]) == 3
    assert f"pip install {package}" in capsys.readouterr().err
