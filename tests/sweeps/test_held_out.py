"""A sweep over held-out domains ends with one table of their test scores."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from raymeta.sweeps.held_out import as_csv, held_out_table, lines_of
from raymeta.sweeps.records import Record
from raymeta.tune import main as tune
from raymeta.views.figures.domains import by_domain
from raymeta.views.sources.sweep import SweepSource

KEYS = ("tasks.held_out", "algorithm")


def trial(number: int, domain: str, algorithm: str, value: float | None, repeat: int = 0, **options: Any) -> Record:
    headline = None if value is None else {"name": "accuracy", "value": value, "ci95": 0.02}
    point = {"tasks.held_out": domain, "algorithm": algorithm}
    record = Record(f"{number:04d}-{repeat}", number, repeat, point, status="finished", headline=headline)
    for name, option in options.items():
        setattr(record, name, option)
    return record


def test_a_row_has_a_score_for_each_domain_and_their_mean() -> None:
    records = [trial(0, "0", "erm", 0.5), trial(1, "15", "erm", 0.7), trial(2, "0", "mldg", 0.6)]
    table = held_out_table(records, KEYS)
    assert table is not None
    assert table["domains"] == ["0", "15"]
    first, second = table["rows"]
    assert first["config"] == {"algorithm": "erm"}
    assert first["scores"]["15"] == {"mean": 0.7, "ci95": 0.02, "runs": 1}
    assert first["mean"] == pytest.approx(0.6)
    assert second["mean"] is None, "one of its domains was not tested"
    assert list(csv.DictReader(as_csv(table).splitlines()))[1] == {
        "algorithm": "mldg",
        "0": "0.6",
        "15": "",
        "mean": "",
    }
    told = lines_of(table)
    assert told[0] == "accuracy of the held-out domain:"
    assert told[1] == "  algorithm erm: 0: 50.00 ± 2.00 %; 15: 70.00 ± 2.00 %; mean of domains 60.00 %"


def test_repeats_are_one_score_with_the_interval_over_seeds() -> None:
    table = held_out_table([trial(0, "0", "erm", value, repeat) for repeat, value in enumerate((0.4, 0.6))], KEYS)
    assert table is not None
    score = table["rows"][0]["scores"]["0"]
    assert score["mean"] == pytest.approx(0.5)
    assert score["ci95"] == pytest.approx(12.706 * math.sqrt(0.02) / math.sqrt(2))
    assert score["runs"] == 2


def test_trials_that_did_not_end_have_no_score() -> None:
    table = held_out_table([trial(0, "0", "erm", None), trial(1, "15", "erm", 0.9, status="failed")], KEYS)
    assert table is not None
    assert table["rows"][0]["scores"] == {}
    assert lines_of(table)[1] == "  algorithm erm: not tested yet"


def test_the_page_draws_a_line_for_each_row_and_leaves_out_what_is_no_table(tmp_path: Path) -> None:
    records = [trial(0, "0", "erm", 0.5), trial(1, "15", "erm", 0.7), trial(2, "0", "mldg", 0.6)]
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"held_out": held_out_table(records, KEYS)}))
    first, second = by_domain(SweepSource(tmp_path).held_out)["data"]
    assert (first["name"], first["x"], first["y"]) == ("algorithm erm", ["0", "15"], [50.0, 70.0])
    assert first["error_y"]["array"] == [2.0, 2.0]
    assert second["y"] == [60.0, None], "what was not tested is a gap"
    for damaged in (7, {"score": "accuracy", "domains": ["0"], "rows": [{"scores": 1}]}, {"rows": []}):
        summary.write_text(json.dumps({"held_out": damaged}))
        assert SweepSource(tmp_path).held_out == {}


def test_other_sweeps_have_no_such_table() -> None:
    assert held_out_table([trial(0, "0", "erm", 0.5)], ["outer.lr"]) is None


@pytest.mark.slow
def test_one_command_holds_out_each_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["tasks.drawers=24", "tasks.batch=4", "tasks.classes=3", "model.width=8", "steps=2"]
    sweep = Path(__file__).parents[2] / "tune_configs" / "domains.yaml"
    text = sweep.read_text(encoding="utf-8")
    text = text.replace('"30", "45", "60", "75"', '"75"').replace("report_every: 100", "report_every: 1")
    (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
    code = tune(["-c", str(tmp_path / "sweep.yaml"), *small, "--concurrent", "2", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "accuracy of the held-out domain:" in out
    (summary,) = (json.loads(p.read_text(encoding="utf-8")) for p in tmp_path.glob("sweeps/*/summary.json"))
    assert summary["held_out"]["domains"] == ["0", "15", "75"]
    assert all(row["mean"] is not None for row in summary["held_out"]["rows"])
    assert len(list(tmp_path.glob("sweeps/*/held_out.csv"))) == 1
