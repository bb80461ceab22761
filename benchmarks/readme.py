"""Bring README.md up to date: its table of results from results/benchmarks/*.json, its examples from examples/*.py.

    python benchmarks/readme.py

Only what stands between `<!-- NAME -->` and `<!-- /NAME -->` is written. tests/test_readme.py fails where it is stale.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
README, RESULTS, EXAMPLES = HOME / "README.md", HOME / "results" / "benchmarks", HOME / "examples"


def main() -> int:
    """Run the command."""
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def updated(text: str) -> str:
    """`text` with every marked block as the files say now."""
    blocks = {path.name: f"```python\n{path.read_text(encoding='utf-8')}```" for path in EXAMPLES.glob("*.py")}
    blocks["results"] = results_table()
    return re.sub(
        r"<!-- ([\w.]+) -->\n.*?<!-- /\1 -->",
        lambda match: f"<!-- {match[1]} -->\n{blocks[match[1]]}\n<!-- /{match[1]} -->",
        text,
        flags=re.DOTALL,
    )


def results_table() -> str:
    """One row for each trained preset that was recorded."""
    contents = {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    rows = [_row(path, content) for path, content in contents.items() if "preset" in content]
    head = ["| preset | before adapting | after | published | outer steps, ours / theirs |", "|---|---|---|---|---|"]
    return "\n".join(head + rows)


def _row(path: Path, content: dict[str, Any]) -> str:
    summary, published = content["summary"], content["published"]
    headline = summary["headline"]
    ours, steps = _score(headline["name"], headline["value"], headline["ci95"]), summary["by_inner_step"]
    before = _score(headline["name"], steps[0]) if len(steps) > 1 else "no inner loop"
    after = f", {len(steps) - 1} inner steps" if len(steps) > 1 else ""
    value = "a curve" if published["value"] is None else _score(headline["name"], published["value"])
    theirs = "not stated" if published["steps"] is None else f"{published['steps']:,}"
    return (
        f"| [{content['preset']}]({path.relative_to(HOME).as_posix()}) | {before} | {ours}{after} "
        f"| {value} ({published['source'].partition(' plot ')[0]}) | {summary['steps']:,} / {theirs} |"
    )


def _score(name: str, value: float, ci95: float | None = None) -> str:
    if name == "accuracy":
        return f"{100 * value:.1f}" + (f" ± {100 * ci95:.1f}" if ci95 is not None else "") + " %"
    return f"error {value:.3g}" + (f" ± {ci95:.2g}" if ci95 is not None else "")


if __name__ == "__main__":
    sys.exit(main())
