"""Bring README.md and docs/ up to date: tables from results/benchmarks/*.json, examples from examples/*.py.

    python tools/update_documents.py

Only what stands between `<!-- NAME -->` and `<!-- /NAME -->` is written; tests/house/test_readme.py fails where it
is stale.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from levels import levels_table

from raymeta.engine.worker.vectorize import by_rule

HOME = Path(__file__).parents[1]
RESULTS, EXAMPLES = HOME / "results" / "benchmarks", HOME / "examples"
METHODS = [RESULTS / "bench-methods.json", RESULTS / "bench-methods-alone.json"]
"""Cases that another path is known for, and those that have none beside them."""
PAGES = [
    HOME / "README.md",
    *(
        HOME / "docs" / f"{name}.md"
        for name in ("workers", "scaling", "speed", "tune", "dashboard", "optimizers", "classification")
    ),
]


def main() -> int:
    """Run the command."""
    for page in PAGES:
        page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def updated(text: str) -> str:
    """`text` with every marked block as the files say now."""
    blocks = {path.name: f"```python\n{path.read_text(encoding='utf-8')}```" for path in EXAMPLES.glob("*.py")}
    blocks |= {"results": results_table(), "chaos": chaos_table(), "scaling": scaling_table()}
    blocks |= {
        "bench-methods": methods_table(),
        "bench": bench_table(),
        "paths": paths_table(),
        "overhead": overhead_table(),
        "kept-memory": kept_memory_table(),
        "fast": fast_text(),
    }
    blocks |= {"dashboard": dashboard_text(), "asha": asha_text()}
    blocks |= {"traffic": traffic_table(), "cut": cut_text(), "short": short_text()}
    blocks |= {"model-check": check_table(), "model": model_table()}
    blocks |= {"learned-optimizers": learned_optimizers_text(), "outer": outer_text()}
    blocks |= {"levels": levels_table()}
    return re.sub(
        r"<!-- ([\w.-]+) -->\n.*?<!-- /\1 -->",
        lambda match: f"<!-- {match[1]} -->\n{blocks[match[1]]}\n<!-- /{match[1]} -->",
        text,
        flags=re.DOTALL,
    )


def results_table() -> str:
    """One row for each preset and length of training that was recorded."""
    head = ["| preset | before adapting | after | published | outer steps, ours / theirs |", "|---|---|---|---|---|"]
    return "\n".join([*head, *map(_row, _trained().values())])


def _trained() -> dict[str, dict[Path, dict[str, Any]]]:
    """The recorded runs of each preset and length, one for each seed."""
    runs: dict[str, dict[Path, dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*-seed*.json")):
        runs.setdefault(path.stem.rpartition("-seed")[0], {})[path] = json.loads(path.read_text(encoding="utf-8"))
    return runs


def short_text() -> str:
    """Which presets were trained to their end, how far the others came, and whether validation still was rising."""
    whole, parts, better, flat = [], [], [], []
    for name, runs in _trained().items():
        (*_, run) = runs.values()
        is_whole = re.search(r"-\d+steps$", name) is None
        if is_whole and all(run["summary"]["stopped_by"] == "steps" for run in runs.values()):
            whole.append(_label(run))
            continue
        label = f"{_label(run)} ({run['summary']['steps']:,} steps)"
        (better if _ended_at_its_best(run) else flat).append(label)
        if run["published"]["steps"] is not None:
            parts.append(f"{label} took {100 * run['summary']['steps'] / run['published']['steps']:.0f} %")
    sentences = []
    if whole:
        sentences.append(
            f"{_listed(whole)} took all outer steps of {'its preset' if len(whole) == 1 else 'their presets'}."
        )
    sentences += [f"{part} of the published steps." for part in parts]
    if better:
        sentences.append(f"Validation was still getting better at the end of {_listed(better)}.")
    if flat:
        sentences.append(
            f"Validation was best before the end of {_listed(flat)}, so more steps are not all that is missing."
        )
    return textwrap.fill(" ".join(sentences), 120, break_on_hyphens=False, break_long_words=False)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _ended_at_its_best(run: dict[str, Any]) -> bool:
    """Whether the last validation is the best one."""
    name = run["summary"]["headline"]["name"]
    scores = [row[f"val/{name}"] for row in run["validation"]]
    best = max(scores) if run["summary"]["headline"]["better"] == "higher" else min(scores)
    return bool(scores[-1] == best)


def chaos_table() -> str:
    """Recovery by kind of fault."""
    content = json.loads((RESULTS / "chaos-omniglot.json").read_text(encoding="utf-8"))
    lines = ["| fault | times | next step after, median | worst |", "|---|---|---|---|"]
    for kind, row in content["recovery"].items():
        lines.append(f"| {kind} | {row['faults']} | {row['median_s']:.1f} s | {row['worst_s']:.1f} s |")
    equal = "equal to" if content["equal"] else "NOT equal to"
    again = max(content["steps_computed_again_on_resume"], default=0)
    lines += [
        "",
        f"{content['faults']} faults in {content['steps']} steps ({content['usual_step_s']:.2f} s each when nothing "
        f"happens); no step left out, at most {again} computed again by a resumption; the final parameters are {equal} "
        "those of one undisturbed process ([numbers](../results/benchmarks/chaos-omniglot.json)).",
    ]
    return "\n".join(lines)


def scaling_table() -> str:
    """Steps of Omniglot MAML by number of workers, with ratios."""
    content = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))["efficiency"]
    lines = ["| | seconds a step, median | least to most | driver busy |", "|---|---|---|---|"]
    for name, row in content["step_s"].items():
        busy = content["driver_busy"].get(name)
        share = f"{100 * busy['median']:.1f} %" if busy else ""
        lines.append(f"| {name} | {row['median']:.3f} | {row['least']:.3f} to {row['most']:.3f} | {share} |")
    lines.append("")
    for name in ("two_workers_over_two_processes", "one_worker_over_in_process", "two_workers_over_in_process"):
        row = content[name]
        words = name.replace("_", " ")
        lines.append(f"- Rate of {words}: {row['median']:.2f} ({row['least']:.2f} to {row['most']:.2f})")
    return "\n".join(lines)


def kept_memory_table() -> str:
    """Shards with memory given back and kept."""
    content = json.loads((RESULTS / "kept-memory.json").read_text(encoding="utf-8"))
    lines = [
        "| case | path | tasks/s, given back | kept | × | new pages a task | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        told = [
            " → ".join(f"{row[way][name]['median']:,.0f}" for way in ("given_back", "kept"))
            for name in ("page_faults_per_task", "peak_memory_mb")
        ]
        rates = " | ".join(f"{row[way]['tasks_per_s']['median']:,.1f}" for way in ("given_back", "kept"))
        lines.append(f"| {row['case']} | {row['path']} | {rates} | {_range(row['rate_ratio'])} | {' | '.join(told)} |")
    return "\n".join(lines)


def bench_table() -> str:
    """Our paths beside the best other library and the floor, for every case that was measured."""
    lines = [
        "| case | path | tasks/s | best other | × the best other | of the floor | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    found = [path for path in sorted(RESULTS.glob("bench-*.json")) if path not in METHODS]
    files = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    for case in (case for content in files for case in content["cases"]):
        rates = {row["path"]: row["tasks_per_s"]["median"] for row in case["rows"]}
        for row in (row for row in case["rows"] if row["path"].startswith("raymeta")):
            memory = row.get("peak_memory_mb")
            lines.append(
                f"| {case['case']} | {row['path'].removeprefix('raymeta ')} | {row['tasks_per_s']['median']:,.0f} "
                f"| {row['best_peer']}, {rates[row['best_peer']]:,.1f} "
                f"| {_range(row['over_best_peer'])} | {_median(row['of_the_floor'])} "
                f"| {'' if memory is None else format(memory, ',.0f')} |"
            )
    return "\n".join(lines)


def methods_table() -> str:
    """The fastest of our paths for each method and for other work, beside the best other path and the floor."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in METHODS if path.exists()]
    if not contents:
        return "Not run."
    lines = [
        "| case | fastest path | tasks/s | best other | × the best other | × it, uncompiled | of the floor | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in (case for content in contents for case in content["cases"]):
        rates = {row["path"]: row["tasks_per_s"]["median"] for row in case["rows"]}
        ours = [row for row in case["rows"] if row["path"].startswith("raymeta")]
        row = max(ours, key=lambda row: float(row["tasks_per_s"]["median"]))
        memory, best = row.get("peak_memory_mb"), row.get("best_peer")
        lines.append(
            f"| {case['case']} | {row['path'].removeprefix('raymeta ')} | {rates[row['path']]:,.0f} "
            f"| {'' if best is None else f'{best}, {rates[best]:,.1f}'} | {_range(row.get('over_best_peer'))} "
            f"| {_range(_uncompiled(ours).get('over_best_peer'))} "
            f"| {_median(row.get('of_the_floor'))} | {'' if memory is None else format(memory, ',.0f')} |"
        )
    files = " and ".join(f"[{path.stem}](../results/benchmarks/{path.name})" for path in METHODS if path.exists())
    commits = dict.fromkeys(content["commit"][:7] for content in contents)
    return "\n".join([*lines, "", f"Numbers: {files}, commit {' and '.join(commits)}."])


def _uncompiled(ours: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fastest of our paths that are not compiled."""
    rows = (row for row in ours if not row["path"].endswith("compiled"))
    return max(rows, key=lambda row: float(row["tasks_per_s"]["median"]))


def _median(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['median']:.2f}"


def _range(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['median']:.2f} ({spread['least']:.2f} to {spread['most']:.2f})"


def traffic_table() -> str:
    """What sums on nodes save, by bandwidth."""
    rows = json.loads((RESULTS / "hosts-traffic.json").read_text(encoding="utf-8"))["rows"]
    lines = [
        "| each host sends at most | sums | seconds a step | MB to the driver's host a step |",
        "|---|---|---|---|",
    ]
    for mbit, aggregate in dict.fromkeys((row["mbit"], row["aggregate"]) for row in rows):
        same = [row for row in rows if (row["mbit"], row["aggregate"]) == (mbit, aggregate)]
        step_s, received = (statistics.median(row[key] for row in same) for key in ("step_s", "received_mb_per_step"))
        limit = "no limit" if mbit is None else f"{mbit:g} Mbit/s"
        lines.append(f"| {limit} | {aggregate} | {step_s:.2f} | {received:.1f} |")
    return "\n".join(lines)


def cut_text() -> str:
    """Links that were cut."""
    content = json.loads((RESULTS / "hosts-cut.json").read_text(encoding="utf-8"))
    waits = ", ".join(f"{name}: {seconds:.1f} s" for name, seconds in content["seconds"].items())
    equal = "equal to" if content["equal"] else "NOT equal to"
    return (
        f"In {content['steps']} steps ({waits}) {content['events']['worker_lost']} workers were lost and "
        f"{content['events']['worker_joined']} joined; the final parameters are {equal} those of one process "
        "([numbers](../results/benchmarks/hosts-cut.json))."
    )


def fast_text() -> str:
    """The best compiled path beside the best other library, of the cases everyone knows."""
    files = (
        json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("bench-*.json") if path not in METHODS
    )
    rows = {case["case"]: case["rows"] for content in files for case in content["cases"]}

    def rate(prefix: tuple[str, ...]) -> float:
        found = (r["tasks_per_s"]["median"] for r in rows["sinusoid-maml"] if r["path"].startswith(prefix))
        return max(found)

    omniglot = max(row["over_best_peer"]["median"] for row in rows["omniglot-maml"] if "over_best_peer" in row)
    sinusoid = rate(("raymeta",)) / rate(("torch", "higher", "learn2learn"))
    return (
        f"- **Fast.** Compiled, on one core: {omniglot:.1f} times the best other library in MAML on Omniglot, "
        f"{sinusoid:.0f} times\n  the best one on PyTorch in MAML on sinusoids "
        "([measured](docs/speed.md#beside-other-libraries), gradients compared first)."
    )


def paths_table() -> str:
    """The measurements behind `vectorize: auto`."""
    content = json.loads((RESULTS / "paths.json").read_text(encoding="utf-8"))
    paths = list(content["rows"][0]["tasks_per_s"])
    lines = [f"| case | values of a task | {' | '.join(paths)} |", "|---|---" + "|---" * len(paths) + "|"]
    for row in content["rows"]:
        rates = {path: f"{rate['median']:,.1f}" for path, rate in row["tasks_per_s"].items()}
        chosen = {by_rule(row["values"]).vectorize, f"{by_rule(row['values'], compiled=True).vectorize}, compiled"}
        cells = " | ".join(f"**{rate}**" if path in chosen else rate for path, rate in rates.items())
        lines.append(f"| {row['case']} | {row['values']:,} | {cells} |")
    return "\n".join(lines)


def overhead_table() -> str:
    """Whole runs beside their meta-gradients alone."""
    content = json.loads((RESULTS / "overhead.json").read_text(encoding="utf-8"))
    sides = ("alone", "paced", "run")
    lines = [
        "| case | meta-gradients alone, tasks/s | at its pace | a whole run, tasks/s | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, case in content["cases"].items():
        rates = " | ".join(f"{case[f'{side}_tasks_per_s']['median']:,.0f}" for side in sides)
        ratio = case["ratio"]
        told = f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"
        lines.append(f"| {name} | {rates} | {told} |")
    return "\n".join(lines)


def dashboard_text() -> str:
    """How fast the dashboard answers."""
    row = json.loads((RESULTS / "dashboard.json").read_text(encoding="utf-8"))
    page, rows = row["run_page_cold_s"], row["long_run_of_250000_rows_page_cold_s"]
    return (
        f"Measured with {row['runs']} runs, one of them of {row['steps']:,} steps "
        "([numbers](../results/benchmarks/dashboard.json)): the first page takes the server "
        f"{row['first_page_cold_s']:.2f} s at first and {1000 * row['first_page_s']:.0f} ms later, a run's page "
        f"{1000 * page:.0f} ms ({1000 * rows:.0f} ms with 250,000 rows), an update of a growing run "
        f"{1000 * row['live_update_s']:.0f} ms; memory {row['memory_after_tailing_100000_rows_mb']:.0f} MB after "
        "following 100,000 rows."
    )


def asha_text() -> str:
    """What ASHA saves."""
    content = json.loads((RESULTS / "asha-versus-grid.json").read_text(encoding="utf-8"))
    grid, inside = content["sweeps"]["grid"], "within" if content["within_interval_of_the_best"] else "NOT within"
    return (
        "Measured on drawn characters ([numbers](../results/benchmarks/asha-versus-grid.json)): of "
        f"{len(grid['trials'])} pairs of inner and outer rates, the grid's best ends at {100 * grid['value']:.1f} "
        f"± {100 * grid['ci95']:.1f} %; what ASHA found is {inside} that interval "
        f"({100 * content['distance']:.1f} points below), after {100 * content['share_of_steps']:.0f} % of the steps."
    )


def outer_text() -> str:
    """A step of several maps on two workers, and what travels in it."""
    content = json.loads((RESULTS / "outer-scaling.json").read_text(encoding="utf-8"))
    ratio, traffic = content["two_workers_over_two_processes"], content["traffic_per_step"]
    seconds = content["step_s"]["2 workers"]["median"]
    kept = "kept" if content["reached"] else "missed"
    text = (
        f"A step of Meta-Weight-Net, {traffic['maps']:.0f} maps of a residual network of {content['parameters']:,} "
        f"parameters, takes {seconds:.2f} s on two workers. Their rate is {ratio['median']:.2f} "
        f"({ratio['least']:.2f} to {ratio['most']:.2f}) of that of two independent processes together; the goal of "
        f"{content['goal']:g} is {kept}. In a step the driver sends {traffic['sent_bytes'] / 1e6:.1f} MB to each node "
        f"and receives {traffic['received_bytes'] / 1e6:.1f} MB "
        "([numbers](../results/benchmarks/outer-scaling.json))."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)


LEARNED = ("l2l", "learned_mlp")


def learned_optimizers_text() -> str:
    """Learned optimisers and tuned ones on the same problems, and which of the learned are below the best tuned one."""
    content = json.loads((RESULTS / "learned-optimizers.json").read_text(encoding="utf-8"))
    kinds, lines = content["problems"], ["| problems | optimiser | rate | loss at the end | above the best tuned one |"]
    lines.append("|---|---|---|---|---|")
    for kind, found in kinds.items():
        for name, row in found["optimizers"].items():
            rate = "learned" if name in LEARNED else f"{row['rate']:.3g}"
            beyond = "the best tuned one" if name == found["best"] else f"{row['beyond_best']:+.3f} ± {row['ci95']:.3f}"
            lines.append(f"| {kind} | {name} | {rate} | {row['loss']:.3f} | {beyond} |")
    pairs = [(kind, name, found["optimizers"][name]) for kind, found in kinds.items() for name in LEARNED]
    below = [f"{name} on {kind}" for kind, name, row in pairs if row["beyond_best"] + row["ci95"] < 0]
    steps = {kind: found["optimizers"][LEARNED[0]]["outer_steps"] for kind, found in kinds.items()}
    trained = ", ".join(f"{count} on {kind}" for kind, count in steps.items())
    text = (
        f"Outer steps: {trained}. {len(below)} of {len(pairs)} learned optimisers "
        f"({', '.join(below) or 'none'}) end below the best tuned one by more than the paired interval. The others are "
        "a miss ([numbers](../results/benchmarks/learned-optimizers.json))."
    )
    return "\n".join([*lines, "", textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)])


def check_table() -> str:
    """The model beside measurements."""
    content = json.loads((RESULTS / "scale-model.json").read_text(encoding="utf-8"))
    lines = ["| case | predicted | measured | ratio |", "|---|---|---|---|"]
    for row in content["check"]:
        times = f"{row['predicted_s']:.3f} s | {row['measured_s']:.3f} s"
        lines.append(f"| {row['case']} | {times} | {row['ratio']:.2f} |")
    return "\n".join(lines)


def model_table() -> str:
    """Predicted efficiency."""
    content = json.loads((RESULTS / "scale-model.json").read_text(encoding="utf-8"))
    counts = [key for key in content["efficiency"][0] if key.isdigit()]
    lines = [f"| network, Gbit/s, sums | {' | '.join(counts)} |", "|---" * (len(counts) + 1) + "|"]
    for row in content["efficiency"]:
        values = " | ".join(f"{row[count]:.2f}" for count in counts)
        lines.append(f"| {row['model']}, {row['gbit']}, {row['aggregate']} | {values} |")
    return "\n".join(lines)


def _row(runs: dict[Path, dict[str, Any]]) -> str:
    (first, *others), summaries = runs.items(), [content["summary"] for content in runs.values()]
    published, headlines = first[1]["published"], [summary["headline"] for summary in summaries]
    name, values = headlines[0]["name"], [headline["value"] for headline in headlines]
    score = _score(name, statistics.mean(values), None if others else headlines[0]["ci95"])
    if others:
        least, most = (_score(name, value).removeprefix("error ") for value in (min(values), max(values)))
        score += f" ({least} to {most})"
    inner_steps = len(summaries[0]["by_inner_step"]) - 1
    before = statistics.mean(summary["by_inner_step"][0] for summary in summaries)
    value = "" if published["value"] is None else f"{_score(name, published['value'])}: "
    theirs = "not stated" if published["steps"] is None else f"{published['steps']:,}"
    cells = [
        ", ".join([_link(_label(first[1]), first[0]), *(_link(f"seed {run['seed']}", path) for path, run in others)]),
        _score(name, before) if inner_steps else "no inner loop",
        score + (f", {inner_steps} inner steps" if inner_steps else ""),
        value + published["source"],
        f"{summaries[0]['steps']:,} / {theirs}",
    ]
    return f"| {' | '.join(cells)} |"


def _label(run: dict[str, Any]) -> str:
    """The preset, and which options of its tasks were set otherwise."""
    options = [(key, value) for key, value in run["changed_options"].items() if key.startswith("tasks.")]
    told = [f"{key.removeprefix('tasks.')} {value}" for key, value in options if key != "tasks.root"]
    return " with ".join([run["preset"], *([", ".join(told)] if told else [])])


def _link(text: str, path: Path) -> str:
    return f"[{text}]({path.relative_to(HOME).as_posix()})"


def _score(name: str, value: float, ci95: float | None = None) -> str:
    if name == "accuracy":
        return f"{100 * value:.1f}" + (f" ± {100 * ci95:.1f}" if ci95 is not None else "") + " %"
    return f"error {value:.3g}" + (f" ± {ci95:.2g}" if ci95 is not None else "")


if __name__ == "__main__":
    sys.exit(main())
