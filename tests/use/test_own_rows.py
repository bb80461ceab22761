"""From somebody's own rows and texts to answers: train, adapt and predict, with the data of training gone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equal_bits import require_equal_bits

import raymeta
from raymeta import adapt, predict
from raymeta.errors import DataError
from raymeta.keys import TaskKey
from raymeta.tasks import Tables, Text, from_arrays
from raymeta.use.support import labelled_examples

SMALL: dict[str, Any] = {"meta_batch_size": 4, "shard_size": 4, "validate_every": 0, "device": "cpu"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def measured(kind: int, count: int) -> list[dict[str, Any]]:
    draws = np.random.default_rng(kind)
    return [{"a": kind + 0.1 * draws.normal(), "b": f"c{kind % 3}", "label": f"kind {kind}"} for _ in range(count)]


def sentences(kind: int, count: int) -> list[dict[str, Any]]:
    return [{"text": f"please say word{kind} number {i}", "label": f"kind {kind}"} for i in range(count)]


@pytest.mark.parametrize(("make", "tasks", "model"), [(measured, Tables, "mlp"), (sentences, Text, "text")])
def test_own_rows_are_learned_adapted_to_and_predicted(
    make: Any,
    tasks: Any,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "train.csv", [row for kind in range(20) for row in make(kind, 10)])
    own = tasks(file=file, label="label", way=3, shot=3, query_shot=3)
    run = raymeta.meta_train(
        tasks=own, model=model, algorithm="protonet", steps=60, test_episodes=20, **{"outer.lr": 0.01}, **SMALL
    )
    Path(file).unlink()
    write(tmp_path / "support.csv", [row for kind in (2, 9, 16) for row in make(kind, 8)])
    queries = [row for kind in (2, 9, 16) for row in make(kind, 11)[8:]]
    write(tmp_path / "new.csv", [{name: value for name, value in row.items() if name != "label"} for row in queries])
    assert adapt.main([str(run.path), "--support", "support.csv", "--out", "desk"]) == 0
    capsys.readouterr()
    assert predict.main(["desk", "new.csv", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [one["label"] for one in answers] == [row["label"] for row in queries]
    (tmp_path / "bad.csv").write_text("other\n1\n", encoding="utf-8")
    assert predict.main(["desk", "bad.csv", "--json"]) == 3
    assert "row 1" in capsys.readouterr().err


@pytest.mark.parametrize("others", [0, 12])
def test_a_model_of_made_up_tables_answers_for_any_table(
    others: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of columns and a category that it never saw; where they are too many it says what becomes of them."""
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"test_episodes": 4, **SMALL}
    run = raymeta.meta_train(tasks="tabular_prior", model="mlp", algorithm="protonet", steps=1, **options)

    def own(kind: int, count: int) -> list[dict[str, Any]]:
        return [row | {f"c{n}": 100 * kind + n for n in range(others)} for row in measured(kind, count)]

    write(tmp_path / "support.csv", [row for kind in (2, 9, 16) for row in own(kind, 8)])
    queries = [row for kind in (16, 2, 9) for row in own(kind, 9)[8:]]
    write(tmp_path / "new.csv", [{name: value for name, value in row.items() if name != "label"} for row in queries])
    assert adapt.main([str(run.path), "--support", "support.csv", "--out", "desk"]) == 0
    assert ("16 numbers of a row are more than the 10" in capsys.readouterr().out) == (others > 0)
    assert predict.main(["desk", "new.csv", "--json"]) == 0
    assert [one["label"] for one in json.loads(capsys.readouterr().out)] == [row["label"] for row in queries]
    (tmp_path / "bad.csv").write_text("other\n1\n", encoding="utf-8")
    assert predict.main(["desk", "bad.csv", "--json"]) == 3
    assert "column a is not there" in capsys.readouterr().err
    write(tmp_path / "far.csv", [queries[0], queries[1] | {"a": 1e35}])
    assert predict.main(["desk", "far.csv", "--json"]) == 3
    told = capsys.readouterr()
    assert "no finite answer to example 2" in told.err
    assert not told.out


@pytest.mark.slow
def test_a_run_on_own_arrays_gives_equal_bits_on_workers_and_after_resume(tmp_path: Path, local_ray: Any) -> None:
    draws = np.random.default_rng(0)
    y = np.repeat(np.arange(15), 12)
    tasks = from_arrays(y[:, None] + draws.normal(size=(180, 3)), y, way=3, shot=2, query_shot=2)
    require_equal_bits(tmp_path, tasks=tasks, model="mlp", algorithm="protonet")


def test_countries_are_learned_better_than_the_mean_of_their_support(tmp_path: Path) -> None:
    """Life expectancy by year, income and population; the mean of the support rows is what needs no learning."""
    data = pytest.importorskip("plotly.data")
    pytest.importorskip("pandas")
    frame = data.gapminder()
    columns = ("year", "gdpPercap", "pop")
    tasks = raymeta.tasks.from_frame(frame, task="country", target="lifeExp", features=columns)
    episodes = tasks.episodes([TaskKey(0, "test", 0, index) for index in range(100)])
    mean = float((episodes.query.y - episodes.support.y.mean(1, keepdim=True)).square().mean())
    options = {"algorithm.inner_lr": 0.05, "algorithm.inner_steps": 3}
    run = raymeta.meta_train(
        tasks=tasks,
        model="mlp",
        algorithm="maml",
        steps=150,
        test_episodes=100,
        output=str(tmp_path),
        **options,
        **SMALL,
    )
    assert run.summary is not None
    assert run.summary["headline"]["value"] < mean / 2


@pytest.mark.parametrize(
    ("header", "read", "named", "labels"),
    [
        ("a,b,species", ("a", "b"), None, ["lion"]),
        ("a,b,label", ("a", "b"), None, ["lion"]),
        ("a,b,species", ("a", "b"), "a", ["1"]),
        ("a,species,zoo", ("a",), None, None),
        ("a,b,species", (), None, None),
    ],
)
def test_the_column_of_labels_is_found(
    header: str, read: tuple[str, ...], named: str | None, labels: list[str] | None, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(f"{header}\n1,2,lion\n")
    if labels is None:
        with pytest.raises(DataError, match="has no column of labels"):
            labelled_examples(tmp_path / "rows.csv", read=read)
    else:
        assert labelled_examples(tmp_path / "rows.csv", label_column=named, read=read).labels == labels
