"""The page of measured meta-gradients says what the file says, and is calm about files that say something else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from looking import HOSTILE, make_bench
from test_dashboard import Server
from test_pages import DAMAGES

from raymeta.dashboard.library import MAX_MEASUREMENTS, Library
from raymeta.system.files import json_text, write_json
from raymeta.views.figures.bench import LOOKS, Rate, rates
from raymeta.views.pages.bench import bench_page
from raymeta.views.sources.bench import MAX_CASES, BenchSource


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_bench(tmp_path)


def blocks(page: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [block for section in page["sections"] for block in section["blocks"] if block["type"] == kind]


def test_a_case_has_a_bar_for_each_path_the_fastest_first_with_its_range(file: Path) -> None:
    page = bench_page("", [BenchSource(file, "bench.json")])
    assert [s["title"] for s in page["sections"]] == ["sinusoid-maml", HOSTILE, "How it was measured"]
    figure = blocks(page, "figure")[0]["spec"]
    assert go.Figure({"data": figure["data"], "layout": figure["layout"]})  # refuses unknown properties
    bars = {trace["name"]: trace for trace in figure["data"] if trace["type"] == "bar"}
    assert list(bars) == ["raymeta", "other libraries", "floor"]
    assert bars["raymeta"]["y"] == ["raymeta compiled", "raymeta vmap"]
    assert bars["raymeta"]["x"] == [22455.3, 3151.0]
    assert bars["raymeta"]["error_x"]["array"] == pytest.approx([0.05 * 22455.3, 0.05 * 3151.0])
    assert bars["raymeta"]["error_x"]["arrayminus"] == pytest.approx([0.1 * 22455.3, 0.1 * 3151.0])
    fastest_first = ["jax jit(vmap)", "raymeta compiled", "floor", "raymeta vmap", "torchopt"]
    assert figure["layout"]["yaxis"]["categoryarray"] == fastest_first
    assert figure["layout"]["xaxis"]["range"][1] > 1.05 * 28848.8  # the longest line and the number behind it


def test_ours_others_and_the_floor_differ_by_more_than_colour() -> None:
    assert len({hatching for _, _, hatching in LOOKS.values()}) == len(LOOKS)


def test_the_table_and_the_words_hold_the_numbers_of_the_file(file: Path) -> None:
    page = bench_page("", [BenchSource(file, "bench.json")])
    paths = next(block for block in blocks(page, "table") if block["key"] == "paths:1")
    rows = {row[0]: row[1:] for row in paths["rows"]}
    assert rows["raymeta compiled"] == [22455, 20210, 23578, 0.78, "0.70 to 0.82", 1.76, 109.3, 0.1]
    assert rows["torchopt"][3:5] == [None, None]
    assert rows["floor"][6] is None
    (said, *_) = [block["text"] for block in blocks(page, "note")]
    assert "raymeta compiled at 22,455 tasks per second" in said
    assert "0.78 times the best peer, jax jit(vmap)" in said
    assert "By arithmetic alone 180,000, at 72 GFLOP/s" in said
    left = next(block for block in blocks(page, "table") if block["key"] == "left:1")
    assert left["rows"] == [["higher", "ImportError: no module named higher"]]
    facts = {fact["label"]: fact["value"] + " " + fact["hint"] for fact in page["facts"]}
    assert facts["Commit"] == "0123456789ab and changes that were not committed"
    assert facts["Device"] == "cpu 2 rounds, one thread"
    assert blocks(page, "code")[0]["text"] == f"raymeta bench {HOSTILE}"


def test_names_in_the_figure_stay_text_for_plotly(file: Path) -> None:
    drawn = json.dumps([block["spec"] for block in blocks(bench_page("", [BenchSource(file, "b")]), "figure")])
    assert "&lt;img" in drawn
    assert "<img" not in drawn


def test_a_range_that_cannot_be_is_not_drawn(tmp_path: Path) -> None:
    row = {"path": "torchopt", "tasks_per_s": {"median": 5.0, "least": 9.0, "most": 1.0}}
    (trace, _) = rates([Rate("torchopt", "peer", 5.0, None, None)])["data"]
    assert (trace["error_x"]["array"], trace["error_x"]["arrayminus"]) == ([0.0], [0.0])
    rows = [row, {"path": "x"}, 3, {"tasks_per_s": {"median": -1}}]
    write_json(tmp_path / "odd.json", {"kind": "bench", "cases": [{"rows": rows}]})
    page = bench_page("", [BenchSource(tmp_path / "odd.json", "odd.json")])
    assert [cells[:4] for cells in blocks(page, "table")[0]["rows"]] == [
        ["torchopt", 5.0, None, None], ["x", None, None, None], ["unnamed", None, None, None],
    ]  # fmt: skip


CASES = [
    3, {}, {"rows": 5}, {"rows": [[], None, {"path": {}}]}, {"case": [], "tasks": "x", "left_out": []},
    {"rows": [{"path": None, "tasks_per_s": {"median": 1e999}, "peak_memory_mb": "x", "first_call_s": []}]},
    {"rows": [{"path": "x" * 10_000, "tasks_per_s": {"median": 0, "least": 0, "most": 0}}] * 500},
    {"flops_per_task": 0, "peak_flops": 0}, {"flops_per_task": 1e-300, "peak_flops": 1e300},
]  # fmt: skip


def test_damaged_and_foreign_files_are_calm(file: Path) -> None:
    source = BenchSource(file, file.name)
    odd = [
        {"kind": "bench", key: [{"x": 1}]} for key in ("hardware", "versions", "command", "date", "commit", "device")
    ]
    odd += [{"kind": "bench", "cases": cases} for cases in (5, CASES, CASES[:4] * 200)]
    for damage in [*DAMAGES.values(), *(json.dumps(content).encode() for content in odd)]:
        file.write_bytes(damage)
        page = bench_page("x", [source])
        assert len(json_text(page)) < 2**21
        assert 1 <= len(page["sections"]) <= MAX_CASES + 2
    file.unlink()
    assert "raymeta bench --json x/bench.json" in blocks(bench_page("x", [source]), "code")[0]["text"]


@pytest.fixture
def served(file: Path, tmp_path: Path) -> Iterator[Server]:
    """A server over measurements, a pipe, links that lead out, and a file that was named beside the folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_json(elsewhere / "named.json", {**json.loads(file.read_text()), "date": "2026-11-22T00:00:00+00:00"})
    write_json(tmp_path / "secret.json", {"kind": "bench", "command": "SECRET"})
    os.mkfifo(file.parent / "pipe.json")
    (file.parent / "link.json").symlink_to(tmp_path / "secret.json")
    (file.parent / "folder.json").mkdir()
    server = Server(tmp_path, "--bench", str(elsewhere / "named.json"), "--bench", str(elsewhere))
    yield server
    assert server.stop() == 0


def test_the_newest_result_is_served_and_any_other_by_its_name(served: Server, tmp_path: Path) -> None:
    newest = served.get("/api/pages/bench")
    assert newest.status == served.get("/bench").status == 200
    page = newest.json()
    named = str(tmp_path / "elsewhere" / "named.json")
    assert page["id"] == named
    (control,) = page["controls"]
    assert [value for value, _ in control["options"]] == [named, "bench.json", "older.json"]
    others = " ".join(block["text"] for s in page["sections"] if s["id"] == "others" for block in s["blocks"])
    assert "torn.json: torn.json cannot be read" in others
    assert "not shown: scaling.json" in others
    assert served.get("/api/pages/bench", If_None_Match=newest.headers["ETag"]).status == 304
    older = served.get("/api/pages/bench?result=older.json").json()
    assert older["id"] == "older.json"
    assert older["controls"][0]["value"] == "older.json"


@pytest.mark.parametrize("name", ["../secret.json", "link.json", "pipe.json", "/etc/passwd", "%00", "x" * 5000])
def test_only_listed_results_can_be_chosen(name: str, served: Server, tmp_path: Path) -> None:
    answer = served.get("/api/pages/bench?result=" + name)
    assert answer.status == 200
    assert answer.json()["id"] == str(tmp_path / "elsewhere" / "named.json")
    assert b"SECRET" not in answer.body


def test_a_result_appears_and_goes_while_the_page_is_open(tmp_path: Path) -> None:
    library = Library(tmp_path)
    assert library.benches() == []
    file = make_bench(tmp_path)
    assert [source.name for source in library.benches() if source.is_result] == ["bench.json", "older.json"]
    file.unlink()
    assert [source.name for source in library.benches() if source.is_result] == ["older.json"]


def test_many_files_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    for i in range(MAX_MEASUREMENTS + 30):
        (tmp_path / "benchmarks" / f"{i:04d}.json").write_text("{}")
    names = [source.name for source in Library(tmp_path).benches()]
    assert names == [f"{i:04d}.json" for i in range(30, MAX_MEASUREMENTS + 30)]
