"""The page of measured methods is what the tool makes of the result files, which hold what their numbers came from."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from raymeta.config.variants import BUILT_IN
from raymeta.trackers.scores import half_width, paired

HOME = Path(__file__).parents[2]
FILES = sorted((HOME / "results" / "benchmarks").glob("methods-*.json"))


@cache
def page() -> ModuleType:
    return _module(HOME / "tools" / "methods_page.py")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HOME / "benchmarks"))
    import methods

    yield methods
    for name in ("methods", "budget", "record", "published"):
        sys.modules.pop(name, None)


def test_the_page_is_what_the_tool_writes() -> None:
    text = page().PAGE.read_text(encoding="utf-8")
    assert page().updated(text) == text, "docs/methods.md is stale: run python tools/methods_page.py"


def test_a_changed_number_is_put_right() -> None:
    text = page().PAGE.read_text(encoding="utf-8")
    assert (
        page().updated(text.replace("| reference |", "| +9.9 |")) == text != text.replace("| reference |", "| +9.9 |")
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_scores_can_be_computed_again(file: Path, methods: Any) -> None:
    """From the right answers of each test task, for all methods on the same tasks and at the same budget."""
    content = json.loads(file.read_text())
    rows = {name: row for name, row in content["methods"].items() if "right" in row}
    assert {name: len(row["right"].split()) for name, row in rows.items()} == dict.fromkeys(rows, 600)
    assert len({row["episodes_sha256"] for row in rows.values()}) == 1
    values = {name: np.array(methods.values_of(row)) for name, row in rows.items()}
    for name, row in rows.items():
        assert (values[name].mean(), half_width(values[name])) == pytest.approx((row["accuracy"], row["ci95"]))
        if "difference" in row:
            expected = paired(values[row["reference"]], values[name])
            assert (row["difference"], row["difference_ci95"]) == pytest.approx(expected)
            assert row["reached"] == (row["accuracy"] >= rows[row["reference"]]["accuracy"] - methods.MARGIN)
        assert content["budget_s"] <= row["seconds"] < 1.5 * content["budget_s"]
    for name, tried in content.get("tried", {}).items():
        for row in (row for row in tried.values() if "right" in row):
            expected = paired(values[name], np.array(methods.values_of(row)))
            assert (row["difference"], row["difference_ci95"]) == pytest.approx(expected)
            assert content["budget_s"] <= row["seconds"] < 1.5 * content["budget_s"]


def test_errors_on_lakes_runs_are_those_of_each_run() -> None:
    """Of 20 answers each; the distance that learns nothing has the published error."""
    rows = json.loads((HOME / "results" / "benchmarks" / "lake.json").read_text())["methods"]
    for row in rows.values():
        wrong = np.array(row["of_each_run"]) * 20
        assert wrong == pytest.approx(wrong.round(), abs=1e-4)
        assert (len(wrong), wrong.mean() / 20) == (20, pytest.approx(row["error"], abs=1e-6))
    assert rows["hausdorff"]["error"] == 0.3875


def test_every_registered_method_is_measured_or_left_out(methods: Any) -> None:
    assert sorted([*methods.REFERENCE, *methods.LEFT_OUT]) == sorted(BUILT_IN["algorithm"])
    assert sorted(methods.IN_TURN) == sorted(methods.REFERENCE)
    for setting in methods.SETTINGS:
        assert methods.PUBLISHED[setting].keys() <= methods.REFERENCE.keys()


@pytest.fixture
def done(methods: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been trained, by method and options; a row is written for each in a folder of the test."""
    found: list[str] = []

    def trained(function: Any, method: str, *how: Any) -> dict[str, Any]:
        found.append(" ".join([method, methods.as_text(how[-1])]).strip())
        if found.count(found[-1]) == 1 and "--outer.lr" in found[-1]:
            return {"failed": "once"}
        right = "1 1 1 0" if how[-1] else "1 1 0 0"
        return {"accuracy": 0.5, "ci95": 0.1, "right": right, "queries": 1, "episodes_sha256": "same", "steps": 1}

    monkeypatch.setattr(methods, "in_own_process", trained)
    monkeypatch.setattr(methods, "RESULTS", tmp_path)
    monkeypatch.setattr(sys.modules["record"], "RESULTS", tmp_path)
    return found


def test_the_command_goes_on_with_what_is_missing(methods: Any, done: list[str], tmp_path: Path) -> None:
    asked = ["--setting", "omniglot-5w1s", "--root", "data", "--budget", "9"]
    assert methods.main([*asked, "--methods", "anil"]) == 0
    assert methods.main([*asked, "--methods", "anil,matching"]) == 0
    assert done == ["maml", "anil", "protonet", "matching"]
    content = json.loads((tmp_path / "methods-omniglot-5w1s.json").read_text())
    assert content["methods"]["anil"]["difference"] == 0
    with pytest.raises(SystemExit):
        methods.main([*asked[:-1], "8"])


def test_what_is_tried_stands_beside_the_own_row_of_a_method_that_has_one(
    methods: Any, done: list[str], tmp_path: Path
) -> None:
    asked = ["--setting", "omniglot-5w1s", "--root", "data", "--budget", "9"]
    assert methods.main([*asked, "--methods", "siamese"]) == 0
    trying = [*asked, "--tried", "--methods", "siamese,relation"]
    assert methods.main(trying) == methods.main(trying) == 0
    assert done[2:] == ['siamese --algorithm.pair_loss "contrastive"', 'siamese --algorithm.pair_loss "triplet"']
    content = json.loads((tmp_path / "methods-omniglot-5w1s.json").read_text())
    assert {name: row["difference"] for name, row in content["tried"]["siamese"].items()} == {
        '--algorithm.pair_loss "contrastive"': 0.25,
        '--algorithm.pair_loss "triplet"': 0.25,
    }
    assert "+25.0" in page().tried_text(content)


def test_what_failed_is_tried_again(methods: Any, done: list[str], tmp_path: Path) -> None:
    asked = ["--setting", "omniglot-5w1s", "--root", "data", "--budget", "9", "--methods", "pfn"]
    assert methods.main(asked) == methods.main([*asked, "--tried"]) == methods.main([*asked, "--tried"]) == 0
    assert done.count("pfn --outer.lr 0.002") == 2
    assert methods.main([*asked, "--tried"]) == 0
    assert done.count("pfn --outer.lr 0.002") == 2
