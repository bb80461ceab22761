"""Own tables, texts and arrays as task sets: laws of their episodes, what comes from training alone, and errors."""

from __future__ import annotations

import csv
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymeta.errors import DataError
from raymeta.keys import SPLITS, TaskKey
from raymeta.tasks import ArrayTasks, Tables, Text, from_arrays, from_dataset, from_frame, from_function
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Examples, tensors
from raymeta.tasks.inputs import only, tensors_of
from raymeta.tasks.recorded import reader_from
from raymeta.tasks.rows import rows_of_file

CLASSES = [f"kind-{i:02}" for i in range(20)]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of_classes(per_class: int = 12) -> list[dict[str, Any]]:
    draws = np.random.default_rng(0)
    return [
        {
            "size": round(float(draws.normal(k, 0.3)), 6),
            "colour": f"c{draws.integers(3)}",
            "id": f"{k}-{i}",
            "kind": name,
        }
        for k, name in enumerate(CLASSES)
        for i in range(per_class)
    ]


def rows_of_tasks(per_task: int = 12) -> list[dict[str, Any]]:
    draws = np.random.default_rng(1)
    rows = []
    for t in range(20):
        slope = draws.normal()
        for x in draws.normal(size=per_task).round(6):
            rows.append({"shop": f"shop-{t:02}", "x": x, "y": round(slope * x, 6), "good": "yes" if x > 0 else "no"})
    return rows


def tables(folder: Path, **options: Any) -> Tables:
    return Tables(file=str(write_csv(folder / "t.csv", rows_of_classes())), label="kind", ignore=("id",), **options)


def texts(folder: Path, **options: Any) -> Text:
    rows = [{"text": f"word{k} is number {i} of {k}", "label": c} for k, c in enumerate(CLASSES) for i in range(12)]
    return Text(file=str(write_csv(folder / "texts.csv", rows)), **options)


def arrays(folder: Path, **options: Any) -> ArrayTasks:
    path = folder / "a.npz"
    x = np.arange(20 * 12 * 6, dtype=np.float64).reshape(-1, 2, 3)
    np.savez(path, x=x, y=np.repeat(CLASSES, 12))
    return ArrayTasks(file=str(path), **options)


def shops(folder: Path, **options: Any) -> Tables:
    return Tables(
        file=str(write_csv(folder / "shops.csv", rows_of_tasks())), task="shop", ignore=("good",), target="y", **options
    )


def labelled_shops(folder: Path, **options: Any) -> Tables:
    rows = [{**row, "good": ("no", "yes")[i % 2]} for i, row in enumerate(rows_of_tasks())]
    own = {"shot": 2, "query_shot": 3, **options}
    return Tables(file=str(write_csv(folder / "labels.csv", rows)), task="shop", ignore=("y",), label="good", **own)


MAKERS = [tables, texts, arrays, shops, labelled_shops]


@pytest.mark.parametrize("make", MAKERS)
def test_episodes_are_pure_and_equal_alone_and_in_a_batch(make: Any, tmp_path: Path) -> None:
    tasks, again = make(tmp_path, way=3), make(tmp_path, way=3)
    tasks.check()
    for split in SPLITS:
        keys = [TaskKey(5, split, step, index) for step in range(2) for index in range(3)]
        batch = tensors(tasks.episodes(keys))
        for t, key in enumerate(keys):
            assert all(torch.equal(one, many[t]) for one, many in zip(tensors(again.episode(key)), batch, strict=True))


@pytest.mark.parametrize("make", [tables, texts, arrays])
def test_support_and_query_are_disjoint_examples_of_the_classes_they_say(make: Any, tmp_path: Path) -> None:
    tasks = make(tmp_path, way=3, shot=4, query_shot=5)
    pool = tasks.loaded.splits["test"]
    episode = tasks.episode(TaskKey(0, "test", 0, 0))
    assert [episode.support.y.tolist().count(k) for k in range(3)] == [4, 4, 4]
    assert [episode.query.y.tolist().count(k) for k in range(3)] == [5, 5, 5]
    for side in episode:
        assert side.class_id is not None
        for row in range(len(side.y)):
            own = slice(int(pool.starts[side.class_id[row]]), int(pool.starts[side.class_id[row] + 1]))
            assert any(equal_rows(pool.x, place, side.x, row) for place in range(own.start, own.stop))
    names = [set(tasks.loaded.splits[split].names) for split in SPLITS]
    assert sum(map(len, names)) == len(set.union(*names)) == len(CLASSES)


def equal_rows(x: Any, place: int, given: Any, row: int) -> bool:
    if isinstance(x, dict):
        return all(torch.equal(torch.from_numpy(x[name][place]), given[name][row]) for name in x)
    return torch.equal(torch.from_numpy(x[place]), given[row])


def test_support_and_query_never_share_a_row(tmp_path: Path) -> None:
    """Every row of `arrays` is unique."""
    tasks = arrays(tmp_path, way=4, shot=5, query_shot=7)
    for index in range(50):
        episode = tasks.episode(TaskKey(0, "train", 0, index))
        seen = torch.cat([only(episode.support.x), only(episode.query.x)]).flatten(1)[:, 0]
        assert len(seen.unique()) == 48


def test_tasks_of_a_regression_are_rows_of_one_task(tmp_path: Path) -> None:
    tasks = shops(tmp_path, shot=5, query_shot=4)
    assert (tasks.goal, tasks.num_outputs, tasks.size("test")) == ("regression", 1, (1, 5, 4))
    reader = tasks.reader()
    assert reader is not None
    slopes = []
    for index in range(30):
        episode = tasks.episode(TaskKey(0, "test", 0, index))
        x = torch.cat([only(side.x) for side in episode]) * reader.numbers["x"][1] + reader.numbers["x"][0]
        y = torch.cat([side.y for side in episode]) * reader.target[1] + reader.target[0]
        slopes.append(round(float((y / x).median()), 3))
        assert (y - (y / x).median() * x).abs().max() < 1e-4
    assert 2 <= len(set(slopes)) <= 4


def test_labels_of_tasks_mean_the_same_in_all(tmp_path: Path) -> None:
    tasks = labelled_shops(tmp_path)
    assert (tasks.goal, tasks.num_outputs, tasks.size("test")) == ("classification", 2, (2, 2, 3))
    assert [tasks.class_name("test", label) for label in (0, 1)] == ["no", "yes"]
    by_size = {float(np.float32(r["x"])): ("no", "yes")[i % 2] for i, r in enumerate(rows_of_tasks())}
    mean, deviation = tasks.reader().numbers["x"]  # type: ignore[union-attr]
    for index in range(10):
        support = tasks.episode(TaskKey(0, "test", 0, index)).support
        for x, label in zip(only(support.x)[:, 0].tolist(), support.y.tolist(), strict=True):
            nearest = min(by_size, key=lambda known: abs(known - (x * deviation + mean)))
            assert by_size[nearest] == ("no", "yes")[label]


def test_normalisation_and_vocabulary_come_from_training_alone(tmp_path: Path) -> None:
    lists = {
        "train_classes": tuple(CLASSES[:10]),
        "val_classes": tuple(CLASSES[10:15]),
        "test_classes": tuple(CLASSES[15:]),
    }
    rows = [{**row, "colour": "only-test"} if row["kind"] in CLASSES[15:] else row for row in rows_of_classes()]
    table = Tables(file=str(write_csv(tmp_path / "t.csv", rows)), label="kind", ignore=("id",), **lists)
    reader = table.reader()
    sizes = [row["size"] for row in rows if row["kind"] in CLASSES[:10]]
    assert reader is not None
    assert reader.numbers["size"] == pytest.approx((np.mean(sizes), np.std(sizes)))
    assert "only-test" not in reader.categories["colour"]
    words = texts(tmp_path, **lists).reader()
    assert words is not None
    assert {"word0", "word9"} <= set(words.vocabulary)
    assert not {"word10", "word19"} & set(words.vocabulary)


@pytest.mark.parametrize("make", MAKERS[:4])
def test_what_a_run_remembers_makes_the_same_inputs(make: Any, tmp_path: Path) -> None:
    tasks = make(tmp_path, way=3)
    manifest = type(tasks.manifest()).from_json(json.loads(json.dumps(tasks.manifest().to_json())))
    if isinstance(tasks, ArrayTasks):
        assert manifest.preprocessing is None
        return
    rows = rows_of_file(Path(tasks.file))
    Path(tasks.file).unlink()
    reader = reader_from(json.loads(json.dumps(manifest.preprocessing)))
    assert reader == make_reader(tasks)
    held = [value for _, value in tensors_of(reader.read(rows))]
    pool = tasks.loaded.splits["train"].x
    columns = [pool[name] for name in sorted(pool)] if isinstance(pool, dict) else [pool]
    for mine, theirs in zip(held, columns, strict=True):
        known = {value.tobytes() for value in mine.numpy()}
        assert all(value.tobytes() in known for value in theirs)


def make_reader(tasks: TaskSet) -> Any:
    return tasks.reader()


def test_data_of_the_run_are_kept_when_the_file_grew(tmp_path: Path) -> None:
    tasks = tables(tmp_path, way=3)
    recorded = tasks.manifest()
    more = [{"size": 1e6, "colour": "new", "id": str(i), "kind": "more"} for i in range(12)]
    write_csv(tmp_path / "t.csv", [*rows_of_classes(), *more])
    grown = Tables(file=tasks.file, label="kind", ignore=("id",), way=3)
    assert grown.manifest().sha256 != recorded.sha256
    kept = grown.keeping(recorded).keeping_classes(recorded)
    assert kept.manifest().sha256 == recorded.sha256
    for split in SPLITS:
        one, other = (set_.episode(TaskKey(0, split, 0, 0)) for set_ in (tasks, kept))
        assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))
        assert tasks.drawn_from(split) == kept.drawn_from(split)


@pytest.mark.parametrize("make", MAKERS)
def test_data_go_to_another_process_and_the_task_set_without_them(make: Any, tmp_path: Path) -> None:
    tasks = make(tmp_path, way=3)
    tasks.check()
    sent = pickle.loads(pickle.dumps(tasks.to_send()))
    packed = pickle.dumps(tasks)
    for path in tmp_path.iterdir():
        path.unlink()
    other = pickle.loads(packed)
    other.receive(sent)
    other.check()
    key = TaskKey(1, "train", 2, 3)
    assert all(torch.equal(a, b) for a, b in zip(tensors(tasks.episode(key)), tensors(other.episode(key)), strict=True))


def test_a_column_may_say_the_split(tmp_path: Path) -> None:
    part = (
        dict.fromkeys(CLASSES[:10], "train")
        | dict.fromkeys(CLASSES[10:14], "dev")
        | dict.fromkeys(CLASSES[14:], "Test")
    )
    rows = [{**row, "part": part[row["kind"]]} for row in rows_of_classes()]
    options = {"label": "kind", "ignore": ("id",), "split_column": "part"}
    tasks = Tables(file=str(write_csv(tmp_path / "t.csv", rows)), **options)
    assert [tasks.loaded.splits[split].names for split in SPLITS] == [CLASSES[:10], CLASSES[10:14], CLASSES[14:]]
    rows[3]["part"] = "test"
    with pytest.raises(DataError, match="kind-00 is in several splits"):
        Tables(file=str(write_csv(tmp_path / "u.csv", rows)), **options).check()
    rows[3]["part"] = "later"
    with pytest.raises(DataError, match="row 4: its split is 'later'"):
        Tables(file=str(write_csv(tmp_path / "v.csv", rows)), **options).check()


def test_tasks_with_too_few_rows_are_left_out_and_listed(tmp_path: Path) -> None:
    rows = [row for i, row in enumerate(rows_of_tasks()) if row["shop"] != "shop-03" or i % 12 < 4]
    tasks = Tables(file=str(write_csv(tmp_path / "t.csv", rows)), task="shop", ignore=("good",), target="y")
    there = [name for split in SPLITS for name in tasks.loaded.splits[split].names]
    assert sorted(there) == [f"shop-{t:02}" for t in range(20) if t != 3]
    assert any("1 tasks left out, fewer than 10 examples: shop-03 (4)" in note for note in tasks.notes())
    with pytest.raises(DataError, match="the train split has 0 tasks with enough examples"):
        dataclasses.replace(tasks, shot=50).check()


def test_missing_values_are_the_mean_or_refused_by_row_and_column(tmp_path: Path) -> None:
    rows = rows_of_classes()
    rows[6]["size"], rows[7]["colour"] = "NA", ""
    path = str(write_csv(tmp_path / "t.csv", rows))
    options = {"file": path, "label": "kind", "ignore": ("id",)}
    tasks = Tables(**options)
    x = tasks.reader().read(rows_of_file(Path(path)))  # type: ignore[union-attr]
    assert only(x)[6, 0] == 0
    assert only(x)[7, 1:].abs().sum() == 0
    assert any("size (1), colour (1)" in note for note in tasks.notes())
    with pytest.raises(DataError, match=r"t\.csv row 7: column size is missing"):
        Tables(**options, missing="refuse").check()


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        ({}, {"label": "sort"}, "row 1 has no column sort"),
        ({}, {"ignore": ("nothing",)}, "row 1 has no column nothing"),
        ({"kind": ""}, {}, "row 6: it has no kind"),
        ({"size": "inf"}, {"target": "size", "task": "kind", "label": None}, "is inf, and finite numbers"),
        ({"size": "tall"}, {"target": "size", "task": "kind", "label": None}, "'tall', which is no number"),
        ({}, {"train_classes": ("kind-00",), "test_classes": ("kind-99",)}, "kind-99"),
    ],
)
def test_mistakes_are_told_with_file_and_row(change: Any, options: Any, told: str, tmp_path: Path) -> None:
    rows = rows_of_classes()
    rows[5] |= change
    given = {"label": "kind", "ignore": ("id",)} | options
    with pytest.raises(DataError, match=told):
        Tables(file=str(write_csv(tmp_path / "t.csv", rows)), **given).check()


def test_a_column_of_names_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "id": f"n{i}"} for i, row in enumerate(rows_of_classes(120))]
    with pytest.raises(DataError, match=r"column id has .* different texts"):
        Tables(file=str(write_csv(tmp_path / "t.csv", rows)), label="kind").check()


def test_options_that_make_no_sense_together_are_refused() -> None:
    for options in ({}, {"label": "a", "target": "b"}, {"target": "b"}):
        with pytest.raises(ValueError, match=r"tasks\.label|tasks\.task"):
            Tables(file="t.csv", **options)
    with pytest.raises(ValueError, match="its three shares must make 1"):
        Text(file="t.csv", split_ratio=(0.5, 0.2, 0.2))


def test_a_lone_quotation_mark_in_a_tsv_swallows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text('text\tlabel\n"set a timer\ta\nsay "hi" now\tb\n"he said ""no"""\tc\n', encoding="utf-8")
    assert [row["text"] for row in rows_of_file(path)] == ['"set a timer', 'say "hi" now', 'he said "no"']
    path.write_text("text\tlabel\nonly one\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        rows_of_file(path)


@pytest.mark.parametrize(("name", "between"), [("two.csv", ","), ("two.tsv", "\t")])
def test_two_columns_of_one_name_are_refused(name: str, between: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("\n".join(between.join(line) for line in (["size", "kind", "size"], ["1", "a", "2"])))
    with pytest.raises(DataError, match=r"line 1: two columns are called 'size'"):
        rows_of_file(path)
    path.write_text("\n".join(between.join(line) for line in (["size", "", ""], ["1", "", ""])))
    assert [row["size"] for row in rows_of_file(path)] == ["1"]


def test_parquet_and_json_lines_give_the_same_episodes_as_csv(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    rows = rows_of_classes()
    pandas.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sets = [
        tables(tmp_path),
        *(dataclasses.replace(tables(tmp_path), file=str(tmp_path / f"t.{k}")) for k in ("parquet", "jsonl")),
    ]
    sets.append(from_frame(pandas.DataFrame(rows), label="kind", ignore=("id",)))
    first, *others = [tensors(one.episode(TaskKey(0, "train", 0, 0))) for one in sets]
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_an_unknown_word_is_one_id_wherever_it_stands(tmp_path: Path) -> None:
    reader = texts(tmp_path, length=6).reader()
    assert reader is not None
    inputs = reader.read(["Zyx word0 is", {"text": "of zyx", "label": "whatever"}])
    tokens, mask = inputs["tokens"], inputs["mask"]
    assert tokens[0, 0] == tokens[1, 1]
    assert 1 <= int(tokens[0, 0]) <= 1024 < int(tokens[0, 1]) < reader.num_tokens
    assert mask.sum(1).tolist() == [3, 2]
    assert not tokens[~mask].any()
    with pytest.raises(DataError, match="row 2: it has no text in the column text"):
        reader.read([{"text": "a"}, {"other": "b"}])


def test_a_tokenizer_file_gives_its_tokens(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "[PAD]": 1, "is": 2, "number": 3, "of": 4, "word0": 5}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tasks = texts(tmp_path, tokenizer=str(tmp_path / "tokenizer.json"), length=4)
    reader = reader_from(json.loads(json.dumps(tasks.manifest().preprocessing)))
    inputs: Any = reader.read(["word0 is", "of number is word0 word0"])
    assert inputs["tokens"].tolist() == [[5, 2, 1, 1], [4, 3, 2, 5]]
    assert inputs["mask"].tolist() == [[True, True, False, False], [True] * 4]
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="tokenizer file cannot be read"):
        texts(tmp_path, tokenizer=str(tmp_path / "tokenizer.json")).check()


def test_arrays_from_python_are_those_of_a_file(tmp_path: Path) -> None:
    from_file = arrays(tmp_path, way=3)
    with np.load(tmp_path / "a.npz") as found:
        handed = from_arrays(torch.from_numpy(found["x"]), found["y"], way=3)
        dataset = [(torch.from_numpy(x), y) for x, y in zip(found["x"], found["y"], strict=True)]
    listed = from_dataset(dataset, way=3)
    key = TaskKey(0, "val", 0, 1)
    for other in (handed, listed):
        pairs = zip(tensors(from_file.episode(key)), tensors(other.episode(key)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    lost = dataclasses.replace(handed, sha256="0" * 64)
    with pytest.raises(DataError, match=r"raymeta\.tasks\.from_arrays"):
        lost.check()


def test_arrays_of_tasks_and_of_several_inputs() -> None:
    draws = np.random.default_rng(0)
    x = {"tokens": draws.integers(9, size=(200, 4)), "mask": draws.random((200, 4)) < 0.5}
    groups, y = np.repeat(np.arange(20), 10), draws.normal(size=(200, 2))
    tasks = from_arrays(x, y, groups=groups, shot=4, query_shot=4)
    episode = tasks.episode(TaskKey(0, "train", 0, 0))
    assert (tasks.goal, tasks.num_outputs, tasks.input_shape) == ("regression", 2, {"tokens": (4,), "mask": (4,)})
    assert isinstance(episode.support.x, dict)
    assert [episode.support.x[name].dtype for name in ("tokens", "mask")] == [torch.int64, torch.bool]
    assert from_arrays(x, groups % 2, groups=np.tile(np.arange(10), 20), shot=2, query_shot=2).num_outputs == 2


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (np.zeros((4, 2), np.uint8), ["a"] * 4, "divide pictures by 255"),
        (np.full((4, 2), np.nan), ["a"] * 4, "x row 1 holds NaN"),
        (np.zeros((4, 2)), ["a"] * 3, "x has 4 examples and y 3"),
        (np.zeros((4, 2)), np.zeros(4), "say tasks.kind targets"),
    ],
)
def test_unsound_arrays_are_refused(x: Any, y: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        from_arrays(x, y, kind="classes").check()


def lines(key: TaskKey) -> Episode:
    draws = key.generator()
    slope = draws.normal()
    sides = [torch.from_numpy(draws.normal(size=(n, 1)).astype(np.float32)) for n in (5, 7)]
    return Episode(*(Examples(x, x * slope) for x in sides))


def test_a_function_is_a_task_set() -> None:
    tasks = from_function(lines)
    assert (tasks.goal, tasks.num_outputs, tasks.size("val"), tasks.input_shape) == ("regression", 1, (1, 5, 7), (1,))
    key = TaskKey(0, "test", 3, 1)
    assert all(torch.equal(a, b) for a, b in zip(tensors(tasks.episode(key)), tensors(lines(key)), strict=True))


def test_published_intents_are_read_whole(intents: tuple[Path, dict[str, list[str]]]) -> None:
    """CLINC150: 150 intents of 150 sentences each, a few of them with lone quotation marks, and those out of scope."""
    file, lists = intents
    assert len(rows_of_file(file)) == 23_700
    tasks = Text(file=str(file), label="intent", **{f"{split}_classes": tuple(lists[split]) for split in SPLITS})
    assert [tasks.num_classes(split) for split in SPLITS] == [50, 50, 50]
    assert {count for split in SPLITS for count in tasks.loaded.splits[split].examples().tolist()} == {150}
