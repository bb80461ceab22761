"""The interval over classes: classes are its units, whatever the number of episodes and of queries."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import raymeta
from raymeta.runs.compare import pair_up
from raymeta.trackers.over_classes import OverClasses, classes_text, over_classes

SIX = {"model.width": 4, "steps": 1, "meta_batch_size": 2, "shard_size": 2, "validate_every": 0}


def episodes(shares: dict[int, float], count: int, way: int = 2, queries: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Queries of episodes that take the classes in turn, so many of each class right in each."""
    ids = list(shares)
    chosen = [[ids[(e + i) % len(ids)] for i in range(way)] for e in range(count)]
    class_id = np.repeat(np.array(chosen), queries, axis=1)
    right = [[float(q < shares[c] * queries) for c in row for q in range(queries)] for row in chosen]
    return np.array(right), class_id


def test_it_is_that_of_students_t_over_the_shares_of_the_classes() -> None:
    shares = {3: 0.9, 7: 0.6, 8: 0.3, 11: 0.8}
    found = over_classes(*episodes(shares, 8))
    s = np.std(list(shares.values()), ddof=1)
    assert found == (4, pytest.approx(3.182 * s / 2))
    assert over_classes(*episodes(shares, 400, queries=20)) == (4, pytest.approx(found.ci95))  # no more classes


@pytest.mark.parametrize("classes", [2, 3, 6, 11, 20, 21, 30, 100])
def test_its_quantiles_are_those_of_students_t(classes: int) -> None:
    """Half of 95 % of the density lies between 0 and the quantile: the integral says so, not a table."""
    shares = {c: float(c % 2) for c in range(classes)}
    s = np.std(list(shares.values()), ddof=1)
    quantile = over_classes(*episodes(shares, classes)).ci95 * math.sqrt(classes) / s
    freedom = classes - 1
    t = np.linspace(0, quantile, 200_001)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = scale * (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    assert np.trapezoid(density, t) == pytest.approx(0.475, abs=2e-5)


def test_classes_without_spread_leave_none_and_one_class_says_nothing() -> None:
    assert over_classes(*episodes({0: 0.5, 1: 0.5, 2: 0.5}, 9)).ci95 == 0
    assert over_classes(*episodes({4: 0.5}, 9, way=1)) == OverClasses(1, math.inf)


def test_few_test_classes_are_told_and_many_are_not() -> None:
    assert classes_text("accuracy", {"classes": 5, "ci95": 0.084}).startswith(
        "only 5 test classes: the interval over classes is ± 8.40 %;"
    )
    assert "nothing of other classes" in classes_text("accuracy", {"classes": 1, "ci95": None})
    for absent in (None, {}, {"classes": "5"}, [5]):
        assert classes_text("accuracy", absent) == ""


def test_differences_over_few_classes_say_so() -> None:
    few, many = {"classes": 5, "ci95": 0.1}, None
    tests = {
        label: {"values": [0.1, 0.5 + place], "settings": {"episodes_sha256": "one"}, "over_classes": told}
        for place, (label, told) in enumerate({"a": few, "b": few}.items())
    }
    pairs = pair_up(tests)
    assert pairs is not None
    assert pairs.note.startswith("only 5 test classes: the intervals of differences are over episodes")
    pairs = pair_up({label: test | {"over_classes": many} for label, test in tests.items()})
    assert pairs is not None
    assert pairs.note == ""


@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_a_run_tells_it_for_few_classes_and_it_follows_from_the_written_episodes(
    vectorize: str, tmp_path: Path
) -> None:
    options = {**SIX, "tasks.test_classes": 6, "vectorize": vectorize, "chunk_size": 1}
    run = raymeta.meta_train(output=str(tmp_path), test_episodes=3, **options)  # type: ignore[arg-type]
    right: dict[str, list[bool]] = {}
    for path in (run.path / "eval" / "episodes").glob("*.json"):
        episode = json.loads(path.read_text())
        for label, said in zip(episode["query_y"], episode["predicted"][-1], strict=True):
            right.setdefault(episode["class_names"][label], []).append(label == said)
    shares = [np.mean(found) for found in right.values()]
    assert run.summary is not None
    assert run.summary["over_classes"] == {"classes": 6, "ci95": pytest.approx(2.571 * np.std(shares, ddof=1) / 6**0.5)}
    test = raymeta.meta_test(run, episodes=3).to_json()
    assert test["over_classes"] == run.summary["over_classes"]
    assert test["ci95_by_inner_step"][-1] == test["headline"]["ci95"]
    assert len(test["ci95_by_inner_step"]) == len(test["by_inner_step"]["accuracy"])


def test_a_run_of_many_classes_says_nothing(tmp_path: Path) -> None:
    run = raymeta.meta_train(output=str(tmp_path), test_episodes=4, **SIX)  # type: ignore[arg-type]
    assert run.summary is not None
    assert run.summary["over_classes"] is None
