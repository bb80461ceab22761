"""Functions stay small enough to be seen at once; their docstrings do not count."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import raymeta

MEDIAN, NINE_IN_TEN, MOST = 5, 20, 50


def lengths() -> dict[str, int]:
    """Lines of every function's body."""
    found = {}
    for path in sorted(Path(raymeta.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                found[f"{path.name}:{node.lineno} {node.name}"] = lines
    return found


def test_functions_are_small() -> None:
    found = lengths()
    values = sorted(found.values())
    assert statistics.median(values) <= MEDIAN
    assert values[9 * len(values) // 10] <= NINE_IN_TEN
    assert {name: lines for name, lines in found.items() if lines > MOST} == {}
