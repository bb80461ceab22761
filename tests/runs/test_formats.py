"""Runs of every format are read. Old ones lie in tests/support/old_runs, by number, as they were written then."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest

import raymeta
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.errors import CheckpointError, DataError
from raymeta.report import main as report
from raymeta.runs import layout
from raymeta.runs.__main__ import main as runs
from raymeta.runs.read import Run, find_runs
from raymeta.runs.seals import sealed, unsealed
from raymeta.sweeps.records import Records
from raymeta.views.sources.run import RunSource

ROOT = Path(raymeta.__file__).parent
OLD = sorted((ROOT.parent / "tests" / "support" / "old_runs").iterdir())


@pytest.fixture(params=OLD, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "results" / request.param.name))


def test_an_old_run_is_listed_and_reported(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs(["ls", str(old.parent)]) == 0
    assert "finished" in capsys.readouterr().out
    assert runs(["show", str(old)]) == 0
    assert report([str(old), "-o", str(old.parent / "page.html")]) == 0
    assert (old.parent / "page.html").stat().st_size > 1000
    source = RunSource(old)
    assert source.problems == []
    assert len(source.metrics()) == 6
    assert len(source.validations()) == 2


def test_an_old_run_is_scored_as_it_was(old: Path) -> None:
    run = raymeta.load_run(old)
    before = json.loads((old / layout.TEST).read_text())
    again = raymeta.meta_test(run, episodes=4)
    assert [float(v) for v in again.scores.main[:, -1]] == pytest.approx(before["values"], rel=1e-5)
    model = run.model()
    assert sum(p.numel() for p in model.parameters()) == 25


def test_an_old_run_goes_on_and_gets_todays_number(old: Path) -> None:
    resumed = raymeta.meta_train(resume=old, steps=8)
    assert resumed.status == "finished"
    assert [row["step"] for row in resumed.metrics()] == list(range(1, 9))
    assert json.loads((old / layout.RUN).read_text())["format"] == layout.FORMAT
    state = json.loads((old / "checkpoints" / "step-00000008" / layout.STATE).read_text())
    assert unsealed(state)["format"] == layout.FORMAT


def test_a_newer_run_is_refused_and_says_what_to_do(old: Path) -> None:
    info = json.loads((old / layout.RUN).read_text())
    (old / layout.RUN).write_text(json.dumps(info | {"format": layout.FORMAT + 1}))
    with pytest.raises(DataError, match=r"made by a newer raymeta .*: update raymeta"):
        raymeta.load_run(old)
    assert "update raymeta" in RunSource(old).problems[0]
    (listed,) = find_runs(old.parent)
    assert listed.status == "lost"
    assert "update raymeta" in listed.info["reason"]
    (old / layout.RUN).write_text(json.dumps(info | {"format": "one"}))
    assert "no number of a format" in Run.open(old).info["reason"]


def test_a_newer_checkpoint_is_refused(old: Path) -> None:
    path = old / "checkpoints" / "step-00000006" / layout.STATE
    state = unsealed(json.loads(path.read_text()))
    path.write_text(json.dumps(sealed(state | {"format": layout.FORMAT + 1})))
    with pytest.raises(CheckpointError, match="update raymeta"):
        CheckpointStore(path.parents[1]).load("step-00000006")


def test_records_of_a_sweep_have_a_number(tmp_path: Path) -> None:
    record = Records(tmp_path, 1).new(0, 0, {"outer.lr": 0.1})
    path = tmp_path / f"{record.id}.json"
    content = json.loads(path.read_text())
    assert content.pop("format") == layout.FORMAT
    path.write_text(json.dumps(content))  # as they were before there were numbers
    assert Records.load(tmp_path, 1).by_id == {record.id: record}
    path.write_text(json.dumps(content | {"format": layout.FORMAT + 1}))
    with pytest.raises(DataError, match=r"update raymeta$"):
        Records.load(tmp_path, 1)


def test_every_number_has_a_reader() -> None:
    assert list(layout.READERS) == list(range(layout.FORMAT + 1))
    assert layout.read_format(layout.numbered({"id": "a"})) == {"id": "a"} == layout.read_format({"id": "a"})


def test_the_names_of_a_runs_files_stand_in_one_file() -> None:
    """Also data.json of the manifest, and the names of checkpoints' files, which the store of checkpoints knows."""
    names = {*layout.PLAIN, *layout.OF_SWEEP, layout.BASE, layout.BEST}
    may = {"runs/layout.py", "tasks/manifest.py"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for path in sorted(ROOT.rglob("*.py"))
        if str(path.relative_to(ROOT)) not in may
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert found == []
