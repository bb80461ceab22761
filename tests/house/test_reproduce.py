"""Result files of trained presets hold what their numbers were computed from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import raymeta

BENCHMARKS = Path(raymeta.__file__).parents[1] / "benchmarks"


@pytest.fixture
def reproduce(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import reproduce

    yield reproduce
    for name in ("reproduce", "record"):
        sys.modules.pop(name, None)


def test_the_interval_can_be_computed_again(reproduce: Any, tmp_path: Path) -> None:
    options = {"steps": 2, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 20, "model.hidden": [8]}
    run = raymeta.meta_train("sinusoid-maml", output=str(tmp_path), **options)
    content = reproduce.content(run, "sinusoid-maml", {})
    values, headline = np.array(content["values"]), content["summary"]["headline"]
    assert len(values) == headline["episodes"] == 20
    assert values.mean() == pytest.approx(headline["value"])
    assert 1.96 * values.std(ddof=1) / np.sqrt(20) == pytest.approx(headline["ci95"])


def test_pieces_end_where_one_run_ends(reproduce: Any, tmp_path: Path) -> None:
    options = {"steps": 3, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 20, "model.hidden": [8]}
    whole = reproduce.piece("sinusoid-maml", tmp_path / "whole", options)
    for steps_done in (1, 2, 3):
        run = reproduce.piece("sinusoid-maml", tmp_path / "pieces", {**options, "steps": steps_done})
        content = reproduce.content(run, "sinusoid-maml", {})
        assert content["pieces"] == content["summary"]["steps"] == steps_done
    assert content["values"] == reproduce.content(whole, "sinusoid-maml", {})["values"]
    assert content["summary"]["params_sha256"] == whole.summary["params_sha256"]


def test_a_score_within_intervals_and_margin_is_reproduced(reproduce: Any) -> None:
    published = reproduce.Published(0.98, 0.004, None, "a paper")  # with the margin of 0.005, 0.005 + 0.005 is allowed
    for value, is_near in ((0.9701, True), (0.9699, False), (0.9899, True), (0.9901, False)):
        distances = reproduce.distances({"headline": {"value": value, "ci95": 0.003}}, published)
        assert distances["reproduced"] is is_near


def test_runs_of_other_tasks_have_names_of_their_own(reproduce: Any) -> None:
    options = {"tasks.split_scheme": "random", "tasks.root": "/data", "compile": True, "validate_every": 5}
    assert reproduce.name_of("omniglot", None, options, 1) == "omniglot-split_scheme-random-seed1"
    assert reproduce.name_of("omniglot", None, {"tasks.path": "a/b, c"}, 0) == "omniglot-path-a_b_c-seed0"
    assert reproduce.name_of("omniglot", 30, {"compile": True}, 0) == "omniglot-30steps-seed0"
