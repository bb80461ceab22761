"""What is known of a score stands in one table: nothing else compares a score's name with a text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import raymeta
from raymeta.sweeps.file.schema import SweepFile
from raymeta.trackers.names import METRICS
from raymeta.trackers.scores import OF_GOAL, SCORES, ScoreName, rank, score_in, score_named, score_text, span_text

ROOT = Path(raymeta.__file__).parent
MAY = ("trackers/scores.py", "adaptation/problem.py", "algorithms/")
"""Where scores are defined, and where they are computed."""
COLUMNS = {score.column for score in SCORES.values()} | {"val/"}


def comparisons(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of texts that something is compared with, or that a text is asked to begin or end with."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parts = node.args if node.func.attr.endswith(("with", "fix")) else []
        for part in parts:
            for leaf in part.elts if isinstance(part, ast.Tuple | ast.List | ast.Set) else [part]:
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                    yield node.lineno, leaf.value


def test_nothing_compares_the_name_of_a_score() -> None:
    names = COLUMNS | SCORES.keys()
    found = [
        f"{name}:{line}: {text}"
        for path in sorted(ROOT.rglob("*.py"))
        if not (name := str(path.relative_to(ROOT))).startswith(MAY)
        for line, text in comparisons(ast.parse(path.read_text(encoding="utf-8")))
        if text in names
    ]
    assert found == [], "ask the table SCORES"


def test_a_comparison_would_be_noticed() -> None:
    code = 'a == "mse"\nb in ("x", "accuracy")\nc.endswith("accuracy")\nd.removeprefix("val/")\ne = "mse"\nf["loss"]'
    assert list(comparisons(ast.parse(code))) == [
        (1, "mse"), (2, "x"), (2, "accuracy"), (3, "accuracy"), (4, "val/"),
    ]  # fmt: skip


def test_the_table_is_whole() -> None:
    assert tuple(SCORES) == get_args(ScoreName)
    assert all(score.column == f"val/{name}" and score.title for name, score in SCORES.items())
    judged = [SCORES[name].column for name in OF_GOAL.values()]
    assert set(judged) <= set(METRICS)
    schema = SweepFile.model_json_schema()["properties"]["metric"]
    assert schema["anyOf"][0]["enum"] == judged


def test_which_is_better_ranks_and_prints() -> None:
    better, worse = {"name": "success", "value": 0.9}, {"name": "success", "value": 0.5}
    assert rank(better) > rank(worse)
    assert rank({"name": "regret", "value": 0.5}) > rank({"name": "regret", "value": 0.9})
    assert rank({"value": 2.0, "better": "lower"}) == -2.0
    assert score_text("success", 0.5, 0.1) == "success 50.00 ± 10.00 %"
    assert score_text("regret", 0.5, 0.1) == "regret 0.5 ± 0.1"
    assert span_text("accuracy", [0.2, 0.97], " -> ") == "20.00 -> 97.00 %"
    assert span_text("mse", [4.0, 0.25], " -> ") == "4 -> 0.25"


def test_a_metric_knows_its_score() -> None:
    accuracy = SCORES["accuracy"]
    assert score_in("train/query_accuracy") == score_in("val/accuracy_ci95") == score_in("val/accuracy") == accuracy
    assert score_in("outer/grad_norm") is None
    assert score_named("of another program").better == "min"
