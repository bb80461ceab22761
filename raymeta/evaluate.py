"""Score runs on held-out tasks: `python -m raymeta.evaluate RUN [RUN ...]`. Several runs are compared in pairs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from raymeta.errors import EnvironmentProblem
from raymeta.keys import Split
from raymeta.runs import layout
from raymeta.runs.inside import require_no_way_out
from raymeta.runs.listing import told_apart
from raymeta.runs.read import Run, resolve_run
from raymeta.system.command_line import Parser, add_verbose, dashed, print_result, run_command, say
from raymeta.system.files import json_text, require_writable, write_json
from raymeta.system.quick_torch import import_torch
from raymeta.system.text import clean
from raymeta.trackers.axes import axis_of
from raymeta.trackers.over_classes import classes_text, pairs_text
from raymeta.trackers.progress import event_label
from raymeta.trackers.scores import difference_text, span_text

if TYPE_CHECKING:
    from raymeta.api.evaluate import Evaluation


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("evaluate", lambda: _evaluate(arguments), verbose=arguments.verbose)


def meta_test(run: Run, **options: Any) -> Evaluation:
    """`raymeta.meta_test`, with which torch comes: a mistyped option does not wait for that."""
    import_torch()
    from raymeta.api import evaluate as evaluation

    return evaluation.meta_test(run, **options)


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="raymeta evaluate", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, URI or id, or `latest`")
    parser.add_argument("--episodes", type=int, default=600, help="episodes to score [600]")
    parser.add_argument("--split", choices=get_args(Split), default="test", help="split of the classes [test]")
    parser.add_argument("--seed", type=int, help="seed of the episodes, the same for every run [0]")
    parser.add_argument("--inner-steps", type=int, help="inner steps, in place of the run's own")
    parser.add_argument("--way", type=int, help="classes in an episode, in place of the run's own")
    parser.add_argument("--shot", type=int, help="support examples per class, in place of the run's own")
    parser.add_argument("--query-shot", type=int, help="query examples per class, in place of the run's own")
    parser.add_argument("--workers", type=int, default=0, help="Ray workers; 0 is this process [0]")
    parser.add_argument("--address", metavar="A", help="Ray cluster to join, auto or HOST:PORT; unless given, workers "
                        "are started on this machine")  # fmt: skip
    parser.add_argument("--device", help="auto, cpu or cuda, in place of the run's own")
    parser.add_argument("--tasks.root", dest="root", help="where the data is, in place of the run's own: the same, or "
                        "classes that it never saw")  # fmt: skip
    parser.add_argument("--changed-data", action="store_true", help="score what is there where the run's data changed; "
                        "classes that it learned from are refused all the same")  # fmt: skip
    parser.add_argument("--output", default="results", help="folder or URI of runs given by id [results]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--trust", action="store_true", help="import the code that the runs name")
    parser.add_argument("--no-save", action="store_true", help="print only, and write nothing into the runs")
    add_verbose(parser)
    return parser


def _evaluate(arguments: argparse.Namespace) -> int:
    runs = [resolve_run(reference, arguments.output) for reference in arguments.runs]
    if not arguments.no_save:
        for run in runs:
            _require_writable(run, trust=arguments.trust)
    scored = [_score(run, arguments) for run in runs]
    evaluations = [replace(e, run=name) for e, name in zip(scored, told_apart(runs), strict=True)]
    first, *others = evaluations

    from raymeta.api.evaluate import paired_difference, same_episodes

    pairs = [(first, other, paired_difference(first, other)) for other in others if same_episodes(first, other)]
    apart = [other.run for other in others if not same_episodes(first, other)]
    if arguments.json:
        content = {
            "runs": [{"run": e.run, **e.to_json()} for e in evaluations],
            "paired": [{"first": a.run, "second": b.run, "difference": d, "ci95": c} for a, b, (d, c) in pairs],
            "not_paired": apart,
        }
        text = json_text(content, indent=2)
    else:
        lines = [*map(_text, evaluations), *(_pair_text(a, b, d, c) for a, b, (d, c) in pairs)]
        lines += [f"{run}: scored on other episodes than {first.run}, not paired" for run in apart]
        few = pairs_text(e.over_classes for e in evaluations) if pairs else ""
        text = "\n".join([*lines, few] if few else lines)
    if arguments.no_save:
        say(text)
    else:
        print_result("evaluate", text, " and ".join(str(run.path / layout.EVALUATIONS) for run in runs))
    return 0


def _require_writable(run: Run, *, trust: bool) -> None:
    """Before anything is computed."""
    if not trust:
        require_no_way_out(run.path)
    try:
        require_writable(run.path / layout.EVALUATIONS)
    except EnvironmentProblem as error:
        cause = f": {error.__cause__.strerror}" if isinstance(error.__cause__, OSError) else ""
        raise EnvironmentProblem(
            f"cannot write results into {run.path / 'eval'}{cause}; make it a folder you may write to, or print them "
            "only, with --no-save"
        ) from error


def _pair_text(first: Evaluation, second: Evaluation, difference: float, ci95: float) -> str:
    text = difference_text(first.summary.name, difference, ci95)
    return f"{second.run} − {first.run}: {text} (paired, same episodes)"


def _score(run: Run, arguments: argparse.Namespace) -> Evaluation:
    keys = {"tasks.way": arguments.way, "tasks.shot": arguments.shot, "tasks.query_shot": arguments.query_shot}
    overrides: dict[str, Any] = {key: value for key, value in keys.items() if value is not None}
    if arguments.root is not None:
        overrides["tasks.root"] = arguments.root
    if arguments.address is not None:
        overrides["address"] = None if arguments.address == "none" else arguments.address
    if arguments.device is not None:
        overrides["device"] = arguments.device
    if arguments.seed is not None:
        overrides["seed"] = arguments.seed
    evaluation = meta_test(
        run,
        episodes=arguments.episodes,
        split=arguments.split,
        inner_steps=arguments.inner_steps,
        workers=arguments.workers,
        changed_data=arguments.changed_data,
        trust=arguments.trust,
        tell=_told,
        **overrides,
    )
    s = evaluation.settings
    name = f"{s['split']}-{s['way']}w{s['shot']}s-{s['inner_steps']}steps-{arguments.episodes}ep-seed{s['seed']}.json"
    if not arguments.no_save:
        write_json(run.path / layout.EVALUATIONS / name, evaluation.to_json())
        if run.mirror is not None:
            run.mirror.write(f"eval/{name}", run.path / layout.EVALUATIONS / name)
    return evaluation


def _told(kind: str, message: str, **fields: object) -> None:
    """Progress, and what went wrong, on stderr; results alone are on stdout."""
    print(f"{event_label(kind)}: {clean(message)}", file=sys.stderr, flush=True)


def _text(evaluation: Evaluation) -> str:
    summary, s = evaluation.summary, evaluation.settings
    axis, few = axis_of(summary.axis, summary.per_step), classes_text(summary.name, evaluation.over_classes)
    lines = [
        f"{s['split']} {summary.text}",
        few,
        f"by {axis.place}: {span_text(summary.name, summary.per_step, '  ')}" if axis else "",
        _size_text(s)
        + (f", {axis.end(len(summary.per_step))}" if axis else "")
        + f", batch norm {s['batch_norm']}, seed {s['seed']}, checkpoint of step {s['checkpoint_step']}",
    ]
    return "\n  ".join([evaluation.run, *(line for line in lines if line)])


def _size_text(s: Mapping[str, Any]) -> str:
    """`5-way 1-shot, 5 queries per class`; of one training problem, what was scored of it."""
    if s.get("one_problem"):
        return f"{s['way']} classes, the whole {s['split']} part in batches"
    return f"{s['way']}-way {s['shot']}-shot, {s['query_shot']} queries per class"


if __name__ == "__main__":
    sys.exit(main())
