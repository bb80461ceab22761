"""A report is one file that opens offline: everything is in it, and nothing in it acts but its own scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from raymeta.report import LIMIT_BYTES, main
from raymeta.runs.provenance import package_version

LookedAt = tuple[Path, dict[str, Any]]


def written(tmp_path: Path, *references: object) -> str:
    out = tmp_path / "report.html"
    assert main([*map(str, references), "-o", str(out)]) == 0
    return out.read_text()


def scripts(text: str) -> list[str]:
    return re.findall(r"<script>(.*?)</script>", text, re.DOTALL)


def pages(text: str) -> list[dict[str, Any]]:
    (found,) = re.findall(r'<script type="application/json" id="pages">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["maml0", "sine", "hostile", "failed", "lost"])
def test_a_report_is_whole_small_and_lets_only_its_own_scripts_run(
    kind: str, looked_at: LookedAt, tmp_path: Path
) -> None:
    text = written(tmp_path, looked_at[1][kind].path)
    assert len(text.encode()) < LIMIT_BYTES
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    hashes = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts(text)}
    assert set(re.findall(r"'sha256-([^']*)'", policy[1])) == hashes
    assert "default-src 'none'" in policy[1]
    assert not re.search(r"unsafe-eval|https?:|connect-src|'self'", policy[1])
    markup = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", markup)
    assert "@import" not in text.split("</style>")[0]


def test_the_head_of_a_report_says_when_where_by_what_and_how_it_was_written(
    looked_at: LookedAt, tmp_path: Path
) -> None:
    run = looked_at[1]["maml0"]
    text = written(tmp_path, run.path)
    (head,) = re.findall(r'<span class="quiet made">(.*?)</span>', text)
    assert re.match(r"Written \d{4}-\d\d-\d\d \d\d:\d\d \S+ on ", head)
    assert socket.gethostname() in head
    assert f"by raymeta {package_version('raymeta')}: raymeta report " in head
    assert run.path.name in head
    facts = {fact["label"]: fact for fact in pages(text)[0]["facts"]}
    assert facts["Machine"]["value"] == run.info["host"]
    assert f"torch {torch.__version__.split('+')[0]}" in facts["Machine"]["hint"]
    hostile = tmp_path / "<b>&" / run.path.name
    shutil.copytree(run.path, hostile)
    assert "<b>&" not in re.sub(r"<script.*?</script>", "", written(tmp_path, hostile), flags=re.DOTALL)


def test_a_report_that_would_be_too_large_goes_without_pictures_or_is_refused(
    looked_at: LookedAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = looked_at[1]["maml0"].path
    whole = written(tmp_path, run)
    assert "episodes" in [section["id"] for section in pages(whole)[0]["sections"]]
    monkeypatch.setattr("raymeta.report.LIMIT_BYTES", len(whole.encode()) - 1)
    smaller = written(tmp_path, run)
    kept = [section["id"] for section in pages(whole)[0]["sections"] if section["id"] != "episodes"]
    assert [section["id"] for section in pages(smaller)[0]["sections"]] == kept
    monkeypatch.setattr("raymeta.report.LIMIT_BYTES", 1000)
    out = tmp_path / "refused.html"
    assert main([str(run), "-o", str(out)]) == 3
    assert "report fewer at once" in capsys.readouterr().err
    assert not out.exists()


def test_pictures_are_in_the_report(looked_at: LookedAt, tmp_path: Path) -> None:
    (page,) = pages(written(tmp_path, looked_at[1]["maml0"].path))
    items = [item for s in page["sections"] for block in s["blocks"] for item in block.get("items", ())]
    assert items
    for item in items:
        head, data = item["sheet"].split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")


def test_a_hostile_name_is_data_and_text(looked_at: LookedAt, tmp_path: Path) -> None:
    text = written(tmp_path, looked_at[1]["hostile"].path)
    without = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "<img src=x" not in without
    assert pages(text)[0]["title"] == looked_at[1]["hostile"].name


def test_several_runs_begin_with_their_comparison(looked_at: LookedAt, tmp_path: Path) -> None:
    found = pages(written(tmp_path, looked_at[1]["maml0"].path, looked_at[1]["maml1"].path))
    assert [page["kind"] for page in found] == ["compare", "run", "run"]


def test_a_sweep_by_its_id_or_folder(looked_at: LookedAt, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = looked_at[0] / "sweeps" / "2026-11-20_0930_rates_abcd"
    assert main([sweep.name, "--output", str(looked_at[0]), "-o", str(tmp_path / "a.html")]) == 0
    assert "MB)" in capsys.readouterr().out
    (page,) = pages((tmp_path / "a.html").read_text())
    assert page["kind"] == "sweep"
    assert page == pages(written(tmp_path, sweep))[0]


def test_mistakes(looked_at: LookedAt, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, sweep = looked_at[1]["maml0"].path, looked_at[0] / "sweeps" / "2026-11-20_0930_rates_abcd"
    assert main([str(run), str(sweep), "-o", str(tmp_path / "x")]) == 2
    assert main(["none-such", "--output", str(looked_at[0])]) == 2
    assert main([str(run), "-o", str(tmp_path / "none" / "x")]) == 2
    assert "make it, or choose another -o" in capsys.readouterr().err


def test_runs_of_the_same_id_stand_side_by_side(looked_at: LookedAt, tmp_path: Path) -> None:
    paths = [tmp_path / sweep / "trials" / "0000" for sweep in ("first", "second")]
    for path, name in zip(paths, ("maml0", "maml1"), strict=True):
        shutil.copytree(looked_at[1][name].path, path)
    comparison, first, second = pages(written(tmp_path, *paths))
    assert [first["id"], second["id"]] == ["first/trials/0000", "second/trials/0000"]
    assert list(comparison["links"].values()) == [first["id"], second["id"]]
    sections = {section["id"]: section["blocks"] for section in comparison["sections"]}
    assert len(sections["paired"][0]["spec"]["data"]) == 1
    assert "seed" in [row[0] for row in sections["differences"][0]["rows"]]


def test_a_report_of_a_run_in_a_store_is_written_where_it_is_asked_for(
    looked_at: LookedAt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = looked_at[1]["maml0"].path
    assert main([f"file://{run}"]) == 2
    assert "name a file with -o" in capsys.readouterr().err
    (page,) = pages(written(tmp_path, run.name, "--output", f"file://{run.parent}"))
    assert page["id"] == run.name
    assert "/raymeta-" not in json.dumps(page), "no path of the copy that is deleted at the end"
