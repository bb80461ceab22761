"""Bring docs/methods.md up to date, from results/benchmarks: methods-SETTING, lake, mann-by-instance and tables.

    python tools/methods_page.py

Only what stands between `<!-- NAME -->` and `<!-- /NAME -->` is written; tests/house/test_methods_page.py fails where
it is stale.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from raymeta.config.catalogue import ALIASES, CATALOGUE
from raymeta.config.variants import BUILT_IN

HOME = Path(__file__).parents[1]
RESULTS, PAGE = HOME / "results" / "benchmarks", HOME / "docs" / "methods.md"
SETTINGS = ("omniglot-5w1s", "omniglot-20w1s", "emoji-5w1s")
HEAD = (
    "| method | accuracy | beside its reference | level | published | steps | tasks/s | MB | minutes |",
    "|---|---|---|---|---|---|---|---|---|",
)


def main() -> int:
    """Run the command."""
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def updated(text: str) -> str:
    """`text` with every marked block as the files say now."""
    blocks = {setting: setting_text(read(f"methods-{setting}")) for setting in SETTINGS}
    blocks |= {"lake": lake_text(read("lake")), "tables": tables_text(read("tables"))}
    blocks["tried"] = tried_text(read("methods-omniglot-5w1s"))
    blocks["posterior"] = posterior_text(read("posterior"))
    blocks["mann"] = mann_text(read("mann-by-instance"))
    return re.sub(
        r"<!-- ([\w.-]+) -->\n.*?<!-- /\1 -->",
        lambda match: f"<!-- {match[1]} -->\n{blocks[match[1]]}\n<!-- /{match[1]} -->",
        text,
        flags=re.DOTALL,
    )


def read(name: str) -> dict[str, Any] | None:
    """The content of a result file; None where there is none."""
    path = RESULTS / f"{name}.json"
    content: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return content


def setting_text(content: dict[str, Any] | None) -> str:
    """The table of a setting, its methods from the best to the worst, and what it was made with."""
    if content is None:
        return "Not run."
    rows = sorted(content["methods"].items(), key=lambda item: -item[1].get("accuracy", -1))
    table = [*HEAD, *(_row(method, row) for method, row in rows)]
    return "\n".join([*table, "", _made_with(content)])


def tried_text(content: dict[str, Any] | None) -> str:
    """Other options of methods that missed their level, beside their rows."""
    if content is None or not any(content.get("tried", {}).values()):
        return "Not run."
    lines = ["| method | with | accuracy | beside its row | level | steps |", "|---|---|---|---|---|---|"]
    for method, rows in content["tried"].items():
        level = content["methods"][method]["level"]
        for options, row in rows.items():
            if "failed" in row:
                lines.append(f"| `{method}` | `{options}` | failed: {row['failed']} | | | |")
                continue
            score = f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f}"
            beside = f"{100 * row['difference']:+.1f} ± {100 * row['difference_ci95']:.1f}"
            reached = f"{100 * level:.1f}, {'reached' if row['accuracy'] >= level else 'missed'}"
            lines.append(f"| `{method}` | `{options}` | {score} | {beside} | {reached} | {row['steps']:,} |")
    return "\n".join(lines)


def _made_with(content: dict[str, Any]) -> str:
    counted = "the processor" if content["budget_counts"] == "processor" else "the clock"
    seconds = f"{content['budget_s']:g} seconds of {counted}"
    file = f"../results/benchmarks/methods-{content['setting']}.json"
    few_shot = [name for name in BUILT_IN["algorithm"] if name not in ALIASES and is_few_shot(name)]
    missing = [name for name in few_shot if name not in {*content["methods"], *content["left_out"]}]
    told = f" Not run: {', '.join(f'`{name}`' for name in missing)}." if missing else ""
    return (
        f"{seconds} for each method on {content['cores']} core of {content['hardware']['cpu']}, "
        f"{content['test_episodes']} test tasks ([numbers]({file}), commit {content['commit'][:7]}).{told}"
    )


def is_few_shot(name: str) -> bool:
    """Whether a method is for tasks of new classes."""
    return "classification" in CATALOGUE[name].goals


def _row(method: str, row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"| `{method}` | failed: {row['failed']} |" + " |" * 7
    score = f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f}"
    is_reference = row.get("reference") == method
    beside = "reference" if is_reference else _difference(row)
    level = "" if is_reference or "level" not in row else _level(row)
    return (
        f"| `{method}` | {score} | {beside} | {level} | {_published(row['published'])} | {row['steps']:,} "
        f"| {row['tasks_per_s']:,.0f} | {row['peak_memory_mb']:,.0f} | {row['wall_minutes']:.1f} |"
    )


def _difference(row: dict[str, Any]) -> str:
    if "difference" not in row:
        return "other tasks"
    return f"{100 * row['difference']:+.1f} ± {100 * row['difference_ci95']:.1f} of `{row['reference']}`"


def _level(row: dict[str, Any]) -> str:
    return f"{100 * row['level']:.1f}, {'reached' if row['reached'] else 'missed'}"


def _published(published: dict[str, Any] | None) -> str:
    if published is None:
        return ""
    remark = f"; {published['remark']}" if published["remark"] else ""
    return f"{100 * published['value']:.1f} ({published['evidence']}{remark})"


def mann_text(content: dict[str, Any] | None) -> str:
    """Accuracy of each instance of a class, beside guessing by elimination."""
    if content is None:
        return "Not run."
    rows = [f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f}" for row in content["by_instance"]]
    lines = [
        f"| instance | {' | '.join(str(place) for place in range(1, len(rows) + 1))} |",
        "|---" * len(rows) + "|---|",
    ]
    lines.append(f"| accuracy | {' | '.join(rows)} |")
    numbers = f"[numbers](../results/benchmarks/mann-by-instance.json), commit {content['commit'][:7]}"
    guessed, seen = 100 * content["by_elimination"], 100 * content["protonet"]["accuracy"]
    told = (
        f"{content['steps']:,} steps, {content['seconds']:g} seconds of the processor with those of protonet, which has"
    )
    first = f"A first instance can be guessed by elimination in {guessed:.1f} % at most"
    return "\n".join([*lines, "", f"{told} {seen:.1f} % ({numbers}). {first}."])


def tables_text(content: dict[str, Any] | None) -> str:
    """Accuracy and loss on each table, and how much more of both the transformer has than each other method."""
    if content is None:
        return "Not run."
    lines = ["| table | method | accuracy | more by `pfn` | loss | more by `pfn` |", "|---|---|---|---|---|---|"]
    for name, table in content["tables"].items():
        about = f", {table['about']}" if table["about"] else ""
        told = f"{name} ({table['rows']} rows, {table['columns']} columns, {table['classes']} classes{about})"
        for place, (method, row) in enumerate(table["methods"].items()):
            cells = (_more(row, "accuracy", 100, 1), _more(row, "loss", 1, 3))
            lines.append(f"| {'' if place else told} | {method} | {' | '.join(cells)} |")
    made_up, counted = content["made_up_tables"], "the processor" if content["counted"] == "processor" else "the clock"
    seconds = f"Trained for {content['seconds']:,.0f} seconds of {counted} ({content['steps']:,} steps"
    numbers = f"[numbers](../results/benchmarks/tables.json), commit {content['commit'][:7]}"
    score = f"{100 * made_up['value']:.1f} ± {100 * made_up['ci95']:.1f} % on made-up tables of three classes"
    return "\n".join([*lines, "", f"{seconds}; {numbers}); accuracy {score}."])


def _more(row: dict[str, Any], key: str, factor: float, digits: int) -> str:
    """Two cells: a mean, and what `pfn` has more than it."""
    value, ci95 = factor * row[key], factor * row[f"{key}_ci95"]
    own = f"{value:.{digits}f} ± {ci95:.{digits}f}"
    if f"{key}_ours_more" not in row:
        return f"{own} | "
    more, ci95 = factor * row[f"{key}_ours_more"], factor * row[f"{key}_ours_more_ci95"]
    return f"{own} | {more:+.{digits}f} ± {ci95:.{digits}f}"


def posterior_text(content: dict[str, Any] | None) -> str:
    """How many nats above the exact posterior each method is, by the number of context points."""
    if content is None:
        return "Not run."
    points = list(content["posterior"])
    lines = [f"| context points | {' | '.join(points)} | mean |", "|---" * (len(points) + 2) + "|"]
    exact = (f"{content['posterior'][n]:.3f}" for n in points)
    lines.append(f"| exact posterior | {' | '.join(exact)} | |")
    trainings = []
    for name, method in content["methods"].items():
        gaps = (f"{method['points'][n]['gap']:+.3f} ± {method['points'][n]['gap_ci95']:.3f}" for n in points)
        lines.append(f"| `{name}`, above it | {' | '.join(gaps)} | {method['gap']:+.3f} |")
        trainings.append(f"`{name}` {method['steps']:,} steps in {method['seconds'] / 60:.0f} minutes")
    numbers = f"[numbers](../results/benchmarks/posterior.json), commit {content['commit'][:7]}"
    told = f"{content['tasks']} test tasks; {'; '.join(trainings)} ({numbers})."
    if "pfn" in content["methods"]:
        told += f" Level for `pfn`: {content['level']:g} nats in the mean, {'reached' if content['met'] else 'missed'}."
    return "\n".join([*lines, "", told])


def lake_text(content: dict[str, Any] | None) -> str:
    """Errors on Lake's runs, beside published ones."""
    if content is None:
        return "Not run."
    lines = ["| | error | steps |", "|---|---|---|"]
    for name, row in sorted(content["methods"].items(), key=lambda item: item[1].get("error", 2)):
        told = row.get("failed") or f"{100 * row['error']:.2f} ± {100 * row['ci95']:.1f}"
        lines.append(f"| `{name}` | {told} | {row.get('steps', 'nothing is learned')} |")
    for name, row in sorted(content["published"].items(), key=lambda item: float(item[1]["error"])):
        lines.append(f"| published: {name} | {100 * row['error']:.1f} ({row['evidence']}) | |")
    counted = f"{content['budget_s']:g} seconds of the processor for each"
    better = ", ".join(f"`{name}`" for name in better_than("hausdorff", content["methods"])) or "none"
    numbers = f"[numbers](../results/benchmarks/lake.json), commit {content['commit'][:7]}"
    told = f"Better than the distance by more than both intervals: {better}."
    return "\n".join([*lines, "", f"{counted} ({numbers}). {told}"])


def better_than(reference: str, rows: dict[str, Any]) -> list[str]:
    """Methods whose error is below that of `reference` by more than both intervals."""
    least = rows[reference]["error"] - rows[reference]["ci95"]
    return [name for name, row in rows.items() if row.get("error", 1) + row.get("ci95", 0) < least]


if __name__ == "__main__":
    sys.exit(main())
