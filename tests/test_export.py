"""`runs compare` and `runs export`: the numbers that leave are those of the run."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import raymeta
from raymeta.evaluation import paired_difference
from raymeta.runs.__main__ import main
from raymeta.runs.read import Run

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
def test_trackers_take_a_run_or_name_what_is_missing(
    package: str, looked_at: LookedAt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["export", str(looked_at[1]["maml0"].path), "-o", str(tmp_path), "--format", package])
    if find_spec(package) is None:
        assert code == 3
        assert f"pip install {package}" in capsys.readouterr().err
    else:
        assert code == 0
        assert any(tmp_path.iterdir())
