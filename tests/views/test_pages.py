"""Pages are right where files are right, and calm where they are torn, huge, hostile or gone."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from raymeta.errors import DataError
from raymeta.runs.read import Run
from raymeta.runs.rows import current_rows, read_rows
from raymeta.runs.tail import Tail, thin
from raymeta.runs.write import RunWriter
from raymeta.system.files import json_text
from raymeta.views.pages.compare import compare_page, minutes_of
from raymeta.views.pages.document import duration, score
from raymeta.views.pages.run import run_page
from raymeta.views.pages.runs import listed, runs_page
from raymeta.views.pages.sweep import sweep_page
from raymeta.views.sources.files import LIMIT_BYTES
from raymeta.views.sources.run import POINTS, RunSource
from raymeta.views.sources.sweep import SweepSource, value

LookedAt = tuple[Path, dict[str, Any]]


def rows(first: int, last: int, attempt: int = 1) -> str:
    return "".join(json.dumps({"step": i, "attempt": attempt, "x": 1 / i}) + "\n" for i in range(first, last + 1))


def test_a_tail_follows_what_is_appended_and_counts_complete_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.rows() == []
    with open(path, "a") as file:
        for i in range(1, 30):
            text = rows(i, i)
            file.write(text[:9])
            file.flush()
            assert len(tail.rows()) == i - 1
            file.write(text[9:])
            file.flush()
            assert tail.rows() == read_rows(path)[0]


def test_a_tail_begins_again_when_the_file_shrank_or_was_replaced_or_is_gone(tmp_path: Path) -> None:
    path, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    path.write_text(rows(1, 50))
    tail = Tail(path)
    assert len(tail.rows()) == 50
    path.write_text(rows(7, 9))
    assert [row["step"] for row in tail.rows()] == [7, 8, 9]
    other.write_text(rows(1, 80))
    os.replace(other, path)
    assert len(tail.rows()) == 80
    path.unlink()
    assert tail.rows() == []


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_tail_is_bounded_and_even_however_the_file_grows(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path, keep=50)
    for first in range(1, 1001, chunk):
        with open(path, "a") as file:
            file.write(rows(first, min(1000, first + chunk - 1)))
        assert len(tail.rows()) <= 52
        assert tail.rows()[-1]["step"] == min(1000, first + chunk - 1)
    steps = [row["step"] for row in tail.rows()]
    assert steps[0] == 1
    assert steps == sorted(set(steps))
    gaps = [b - a for a, b in pairwise(steps[:-1])]
    assert max(gaps) <= 4 * min(gaps[1:])
    assert len(steps) >= 20


def test_of_a_huge_file_an_even_choice_is_read_and_the_end_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(rows(1, 40_000))
    tail = Tail(path, keep=100, read_bytes=10_000)
    steps = [row["step"] for row in tail.rows()]
    assert steps[0] == 1
    assert steps[-1] == 40_000
    assert len(steps) <= 110
    assert max(b - a for a, b in pairwise(steps)) < 2_000
    with open(path, "a") as file:
        file.write(rows(40_001, 40_003))
    assert tail.rows()[-1]["step"] == 40_003


def test_thinning_keeps_the_rows_that_tell_where_an_attempt_began(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(rows(1, 700) + rows(350, 1000, attempt=2))
    whole = current_rows(read_rows(path)[0])
    thinned = current_rows(thin(read_rows(path)[0], 90))
    assert [row["attempt"] for row in thinned] == sorted(row["attempt"] for row in thinned)
    assert {row["step"]: row for row in whole}.items() >= {row["step"]: row for row in thinned}.items()
    assert min(row["step"] for row in thinned if row["attempt"] == 2) == 350


def test_a_very_long_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(rows(1, 3) + json.dumps({"step": 4, "x": "y" * 300_000}) + "\n" + rows(5, 5))
    assert [row["step"] for row in Tail(path).rows()] == [1, 2, 3, 5]


def test_a_run_of_a_million_steps_is_thinned_for_its_page(tmp_path: Path) -> None:
    with open(tmp_path / "metrics.jsonl", "w") as file:
        file.writelines(
            f'{{"step": {i}, "attempt": 1, "time": {i}, "train/query_loss": 1.0, "tasks_per_s": 5.0}}\n'
            for i in range(1, 1_000_001, 4)
        )
    (tmp_path / "run.json").write_text('{"id": "long", "status": "finished", "step": 1000000, "steps": 1000000}')
    page = run_page(RunSource(tmp_path))
    charts = [b["spec"] for s in page["sections"] for b in s["blocks"] if b["type"] == "figure"]
    assert charts
    for trace in (trace for chart in charts for trace in chart["data"]):
        assert len(trace["x"]) <= POINTS + 2
        assert trace["x"][-1] > 990_000
    assert len(json_text(page)) < 500_000


def test_the_page_says_how_a_run_ended(looked_at: LookedAt) -> None:
    def why(name: str) -> str:
        page = run_page(RunSource(looked_at[1][name].path))
        return " ".join(b["text"] for s in page["sections"] if s["id"] == "why" for b in s["blocks"])

    assert why("maml0") == ""
    assert "The run failed. NonFiniteGradient: the meta-gradient of step 0 is not finite" in why("failed")
    assert "The run is lost" in why("lost")
    assert "--resume" in why("lost")


def test_a_torn_row_of_a_killed_run_is_not_drawn(looked_at: LookedAt) -> None:
    source = RunSource(looked_at[1]["lost"].path)
    assert [row["step"] for row in source.metrics()] == list(range(1, 8))


def test_the_viewer_begins_with_the_worst_task_and_has_every_inner_step(looked_at: LookedAt) -> None:
    page = run_page(RunSource(looked_at[1]["maml0"].path))
    (viewer,) = [b for s in page["sections"] for b in s["blocks"] if b["type"] == "episodes"]
    scores = [item["steps"][-1] for item in viewer["items"]]
    assert scores == sorted(scores)
    first = viewer["items"][0]
    assert len(first["probabilities"]) == len(first["steps"]) == 4
    assert len(first["boxes"]["query"]) == len(first["query"]) == 25
    assert first["sheet"].startswith("data:image/png;base64,")


def test_a_page_says_what_the_data_were(looked_at: LookedAt) -> None:
    run = looked_at[1]["maml0"]
    (told,) = [fact for fact in run_page(RunSource(run.path))["facts"] if fact["label"] == "Data"]
    assert run.manifest is not None
    assert f"{told['hint']}; {told['value']}" == run.manifest.text()


def test_the_list_has_what_programs_are_promised(looked_at: LookedAt) -> None:
    row = listed(RunSource(looked_at[1]["maml0"].path))
    assert row["headline"]["name"] == "accuracy"
    assert (row["status"], row["step"], row["config"]["algorithm.name"]) == ("finished", 12, "maml")
    page = runs_page("results", [RunSource(run.path) for run in looked_at[1].values()], [])
    ranks = {row["id"]: row["rank"] for row in page["runs"]}
    assert ranks[looked_at[1]["sine"].id] < 0 < ranks[looked_at[1]["maml0"].id]  # of errors, less is better
    assert ranks[looked_at[1]["failed"].id] is None


DAMAGES = {
    "empty": b"",
    "torn": b'{"id": "x", "head',
    "list": b"[1, 2]",
    "text": b'"text"',
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "huge": b'{"a": "' + b"x" * LIMIT_BYTES + b'"}',
    "numbers": b'{"headline": {"value": "NaN"}, "values": ["NaN"], "by_inner_step": {"accuracy": [1e999]}}',
    "infinite": b'{"step": 1e999, "steps": -1e999, "created": 1e999}',
    "types": b'{"headline": 3, "values": {"a": 1}, "by_inner_step": [], "step": [], "steps": {}, "name": {}}',
    "hollow": b'{"headline": {}, "values": [], "by_inner_step": {"accuracy": []}, "tags": 5, "attempt": "x"}',
    "rows": b'{"step": "x"}\n{"step": true, "workers": [3]}\n{"step": 2, "kind": "validation", "value": []}\n'
    b'{"step": 3, "attempt": "x", "workers": [{"name": []}], "kind": [], "message": {}, "time": "x"}\nnull\n',
    "aliases": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
    "deep line": b"- " * 50_000,
    "episode": b'{"key": {"index": 0}, "rank": "x", "query_y": [9], "support_y": [0], "probabilities": [[[1, 0]]],'
    b' "predicted": [[0]]}',
    "boxes": b'{"key": {"index": 0}, "rank": 1, "query_y": [0], "support_y": [0], "probabilities": [[[1, 0]]],'
    b' "predicted": [[0]], "boxes": {"support": [[0, 0, -5, 1e9]], "query": []}}',
}
FILES = ("run.json", "summary.json", "config.yaml", "eval/test.json", "metrics.jsonl", "events.jsonl", "workers.jsonl")


@pytest.mark.parametrize("file", [*FILES, "eval/episodes/episode-0000.json"])
def test_a_damaged_file_never_hides_the_rest(file: str, looked_at: LookedAt, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(looked_at[1]["maml0"].path, copy)
    source = RunSource(copy)
    before = {section["id"] for section in run_page(source)["sections"]}
    for name, damage in DAMAGES.items():
        (copy / file).write_bytes(damage)
        page = run_page(source)
        json.loads(json_text(page))
        json.loads(json_text([listed(source), runs_page("", [source], []), compare_page([source, source])]))
        assert len(before - {section["id"] for section in page["sections"]}) <= 2, (file, name)
    (copy / file).unlink()
    run_page(source)
    (copy / file).mkdir()
    run_page(source)
    (copy / file).rmdir()
    os.mkfifo(copy / file)  # a pipe that nobody writes to: opening it would wait for ever
    run_page(source)
    writer = os.open(copy / file, os.O_RDWR)  # one that is held open and says nothing: reading it would
    run_page(RunSource(copy))
    os.close(writer)
    shutil.rmtree(copy)
    assert run_page(source)["status"] == "lost"
    assert not source.exists


def test_a_damaged_sweep_is_calm(looked_at: LookedAt, tmp_path: Path) -> None:
    copy = tmp_path / "sweep"
    shutil.copytree(looked_at[0] / "sweeps" / "2026-11-20_0930_rates_abcd", copy)
    source = SweepSource(copy)
    assert [s["id"] for s in sweep_page(source)["sections"]] == ["best", "trials", "options", "failures"]
    for file in ("summary.json", "trials.csv", "best.yaml", "records/0000.json", "sweep.yaml"):
        more = [b"trial,value\n1,2,3,4\n,,\n", b'{"trials": [3, {"config": 5, "value": []}]}']
        for damage in [*DAMAGES.values(), *more]:
            (copy / file).write_bytes(damage)
            json.loads(json_text(sweep_page(source)))
    shutil.rmtree(copy)
    assert sweep_page(source)["facts"]


def test_a_sweep_whose_driver_is_gone_is_lost_and_says_how_to_go_on(looked_at: LookedAt, tmp_path: Path) -> None:
    copy = tmp_path / "a sweep; $(x)"
    shutil.copytree(looked_at[0] / "sweeps" / "2026-11-20_0930_rates_abcd", copy)
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    source = SweepSource(copy)
    assert source.status == "running"
    assert sweep_page(source)["live"]
    os.utime(copy / "summary.json", (time.time() - 60, time.time() - 60))
    page = sweep_page(source)
    assert page["status"] == "lost"
    assert not page["live"]
    commands = [b["text"] for b in page["sections"][0]["blocks"] if b["type"] == "code"]
    assert commands == [f"raymeta tune --resume '{copy}'"]
    assert f"raymeta train -c '{copy / 'best.yaml'}'" in json.dumps(page, ensure_ascii=False)


def test_one_absurd_run_hides_no_other(looked_at: LookedAt, tmp_path: Path) -> None:
    """Pipes that nobody writes to, folders in place of files, and numbers of hundreds of digits."""
    shutil.copytree(looked_at[1]["sine"].path, tmp_path / "pipes")
    for name in ("metrics.jsonl", "events.jsonl", "config.yaml", "summary.json", "eval/test.json"):
        (tmp_path / "pipes" / name).unlink()
        os.mkfifo(tmp_path / "pipes" / name)
    shutil.copytree(looked_at[1]["sine"].path, tmp_path / "digits")
    huge = "9" * 400
    for name in ("run.json", "summary.json", "eval/test.json"):
        text = (tmp_path / "digits" / name).read_text()
        (tmp_path / "digits" / name).write_text(re.sub(r": \d+(\.\d+)?", f": {huge}", text))
    with open(tmp_path / "digits" / "metrics.jsonl", "a") as file:
        file.write(f'{{"step": {huge}, "attempt": 1, "time": {huge}, "train/query_loss": {huge}}}\n')
    sources = [RunSource(tmp_path / name) for name in ("pipes", "digits")]
    for page in (runs_page("", sources, []), compare_page(sources, axis="time"), *map(run_page, sources)):
        json.loads(json_text(page))
    assert Run.open(tmp_path / "pipes").id == "pipes"
    with pytest.raises(DataError, match="no regular file"):
        Run.open(tmp_path / "pipes").config  # noqa: B018


def test_cells_of_a_table_are_what_they_were() -> None:
    assert [value(text) for text in ("", "1", "0.5", "true", "[8, 8]", "maml", "{}")] == [
        None, 1, 0.5, True, [8, 8], "maml", "{}",
    ]  # fmt: skip


def test_the_version_changes_with_what_is_shown_and_not_with_the_heart(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", steps=10, heartbeat_s=0.05)
    writer.step(1, {"train/query_loss": 1.0})
    source = RunSource(tmp_path / "run")
    first = source.version
    time.sleep(0.3)
    assert source.version == first
    writer.step(2, {"train/query_loss": 1.0})
    second = source.version
    writer.finish("finished")
    writer.close()
    assert len({first, second, source.version}) == 3


def test_the_pause_between_two_attempts_takes_no_time() -> None:
    found = minutes_of([{"time": 60.0 * t, "attempt": a} for t, a in [(0, 1), (1, 1), (500, 2), (503, 2)]])
    assert found == [0, 1, 1, 4]


def test_compared_runs_are_paired_on_the_same_tasks_only(looked_at: LookedAt) -> None:
    sources = [RunSource(looked_at[1][name].path) for name in ("sine", "maml0", "maml1", "protonet")]
    page = compare_page(sources)
    (paired,) = [s for s in page["sections"] if s["id"] == "paired"]
    chart, left_out = paired["blocks"]
    assert len(chart["spec"]["data"]) == 2
    assert "sinusoid-maml" in left_out["text"]
    keys = [row[0] for s in page["sections"] if s["id"] == "differences" for row in s["blocks"][0]["rows"]]
    assert "algorithm.name" in keys
    assert "model.width" in keys
    assert "seed" in keys
    grouped = compare_page(sources[1:3], metric="train/query_loss", axis="time", grouped=True)
    names = [t["name"] for t in grouped["sections"][0]["blocks"][0]["spec"]["data"]]
    assert any("(2 runs)" in name for name in names)


def test_numbers_are_written_for_people() -> None:
    assert [duration(s) for s in (5, 65, 3700, None, -1)] == ["5 s", "1 min 5 s", "1 h 1 min", "–", "–"]
    assert score({"name": "accuracy", "value": 0.5, "ci95": 0.01}) == "50.00 ± 1.00 %"
    assert score({"name": "mse", "value": 0.5}) == "0.5"
    assert score({"value": "x"}) == score(None) == "–"


def test_a_run_that_its_time_limit_stopped_is_told_so_on_every_page(looked_at: LookedAt, tmp_path: Path) -> None:
    run = looked_at[1]["maml0"]
    copy = tmp_path / run.path.name
    shutil.copytree(run.path, copy)
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**info, "steps": 30, "reason": "time_limit"}))
    source = RunSource(copy)
    page = run_page(source)
    assert page["ending"] == "stopped by time limit"
    why = page["sections"][0]["blocks"]
    assert why[0]["text"].startswith("Stopped by time limit at 12 of 30 steps")
    assert "--resume" in why[1]["text"]
    (row,) = runs_page("", [source], [])["runs"]
    assert (row["status"], row["ending"]) == ("finished", "stopped by time limit")
    other = RunSource(looked_at[1]["maml1"].path)
    compared = compare_page([source, other])
    assert [fact["hint"] for fact in compared["facts"]] == [
        "stopped by time limit, 12 of 30 steps",
        "finished, 12 of 12 steps",
    ]


def test_episodes_have_the_names_of_their_classes(looked_at: LookedAt) -> None:
    blocks = {s["id"]: s["blocks"] for s in run_page(RunSource(looked_at[1]["maml0"].path))["sections"]}
    for item in blocks["episodes"][0]["items"]:
        assert len(item["titles"]) == len(item["names"]) == len(set(item["titles"]))
        assert all(title.startswith("test/") for title in item["titles"])


def test_few_test_classes_are_told_on_the_page(looked_at: LookedAt, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(looked_at[1]["protonet"].path, copy)
    found = json.loads((copy / "eval" / "test.json").read_text())
    for told, wanted in (
        ({"classes": 5, "ci95": 0.084}, "± 8.40 %"),
        ({"classes": 1, "ci95": None}, "–"),
        (None, None),
    ):
        (copy / "eval" / "test.json").write_text(json.dumps({**found, "over_classes": told}))
        facts = {fact["label"]: fact["value"] for fact in run_page(RunSource(copy))["facts"]}
        assert facts.get("Over classes") == wanted
