"""List, show, compare and export runs: `python -m raymeta.runs ls`, `python -m raymeta.runs show latest`."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from raymeta.errors import ConfigError, DataError
from raymeta.runs import layout
from raymeta.runs.layout import HIGHLIGHTS
from raymeta.runs.listing import OWN_KEYS, SUMMARY_KEYS, listing_row, public_row, told_apart, without_repetition
from raymeta.runs.overfitting import overfitting
from raymeta.runs.read import Run, find_runs, resolve_run
from raymeta.system.command_line import Parser, add_verbose, run_command, say
from raymeta.system.files import json_text
from raymeta.system.redact import without_secrets
from raymeta.system.text import clean, did_you_mean, dotted, nearest
from raymeta.system.their_code import trust_flag
from raymeta.trackers.axes import axis_of
from raymeta.trackers.over_classes import classes_text
from raymeta.trackers.scores import better_before, difference_text, over_text, score_text
from raymeta.trackers.scores import rank as rank_of

if TYPE_CHECKING:
    from raymeta.tasks.manifest import Manifest

Row = dict[str, Any]
T = TypeVar("T")

_FILES = " ".join(layout.PLAIN)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    return run_command("runs", lambda: arguments.run(arguments), verbose=arguments.verbose)


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="raymeta runs", description="List, show, compare and export runs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    ls = commands.add_parser("ls", help="list the runs of a folder, newest first")
    ls.add_argument("directory", nargs="?", default="results", metavar="DIR", help="folder, or URI of a store")
    ls.add_argument("--sort", metavar="KEY", help="created, status, step, headline (best first), or algorithm.inner_lr")
    ls.add_argument(
        "--filter", action="append", default=[], metavar="KEY=VALUE", help="status=lost, algorithm.name=maml"
    )
    ls.add_argument("--json", action="store_true", help="a JSON list")
    ls.set_defaults(run=_ls)
    show = commands.add_parser("show", help="show one run")
    show.add_argument("reference", metavar="RUN", help="id, beginning of an id, folder, URI, or latest")
    show.add_argument("--output", default="results", metavar="DIR", help="folder or URI of runs given by id")
    show.add_argument("--json", action="store_true", help="a JSON object")
    show.set_defaults(run=_show)
    compare = commands.add_parser("compare", help="scores, paired differences, options that differ")
    compare.add_argument("references", nargs="+", metavar="RUN", help="two runs or more, as for show")
    compare.add_argument("--output", default="results", metavar="DIR", help="folder or URI of runs given by id")
    compare.add_argument("--json", action="store_true", help="a JSON object")
    compare.set_defaults(run=_compare)
    export_ = commands.add_parser("export", help="write runs for other tools")
    export_.add_argument("references", nargs="+", metavar="RUN", help="runs, as for show")
    export_.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    export_.add_argument(
        "--format", default="csv", help="csv, parquet, tensorboard; mlflow, wandb where installed [csv]"
    )
    export_.add_argument("--output", default="results", metavar="DIR", help="folder or URI of runs given by id")
    export_.set_defaults(run=_export)
    add_verbose(ls, show, compare, export_)
    return parser


def _ls(arguments: argparse.Namespace) -> int:
    runs = find_runs(arguments.directory)
    asked = {text.partition("=")[0] for text in arguments.filter} | ({arguments.sort} if arguments.sort else set())
    known = {*OWN_KEYS, *SUMMARY_KEYS, *HIGHLIGHTS}
    rows = [listing_row(run, whole=not asked <= known) for run in runs]
    for text in arguments.filter:
        rows = _filtered(rows, text)
    if arguments.sort is not None:
        rows = _sorted(rows, arguments.sort)
    if arguments.json:
        print(json_text([public_row(row) for row in rows], indent=2))
    elif rows:
        _table(rows)
    elif runs:
        say(f"none of the {len(runs)} runs in {without_secrets(arguments.directory)}/ matches")
    else:
        say(f"no runs in {without_secrets(arguments.directory)}/: start one with raymeta train")
    return 0


def _value(row: Row, key: str) -> Any:
    return row[key] if key in OWN_KEYS + SUMMARY_KEYS else row["config"].get(key)


def _require_key(rows: list[Row], key: str) -> None:
    known = {*OWN_KEYS, *SUMMARY_KEYS, *(key for row in rows for key in row["config"])}
    if rows and key not in known:
        hint = did_you_mean(nearest(key, sorted(known), most=3, cutoff=0.4), before="; ")
        raise ConfigError(f"no run has the key «{key}»{hint}")


def _filtered(rows: list[Row], text: str) -> list[Row]:
    key, equals, wanted = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--filter {text}: write KEY=VALUE, such as algorithm.name=maml or status=finished")
    _require_key(rows, key)
    return [row for row in rows if _matches(_value(row, key), wanted)]


def _matches(value: object, wanted: str) -> bool:
    if isinstance(value, list):
        return any(_matches(item, wanted) for item in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return value == float(wanted)
        except ValueError:
            return False
    return wanted in (str(value), json.dumps(value, default=str))


def _sorted(rows: list[Row], key: str) -> list[Row]:
    _require_key(rows, key)

    def rank(row: Row) -> tuple[int, float, str]:
        value = _value(row, key)
        if isinstance(value, dict):  # the headline: best first
            value = -rank_of(value)
        if isinstance(value, int | float) and not math.isnan(value):
            return (0, value, "")
        return (2, 0.0, "") if value is None or isinstance(value, float) else (1, 0.0, str(value))

    newest_first = key in ("created", "updated")
    return sorted(rows, key=lambda row: str(_value(row, key)), reverse=True) if newest_first else sorted(rows, key=rank)


def _headline_text(headline: object) -> str:
    if not isinstance(headline, dict) or not headline:
        return "-"
    return score_text(headline["name"], headline["value"], headline["ci95"])


def _table(rows: list[Row]) -> None:
    titles = ("run", "status", "steps", "headline", "algorithm", "tasks", "created")
    cells = [
        (
            row["id"],
            row["ending"] + (" (damaged)" if "problem" in row else ""),
            f"{row['step'] or 0:,}/{row['steps'] or 0:,}",
            _headline_text(row["headline"]),
            str(row["config"].get("algorithm.name", "-")),
            str(row["config"].get("tasks.name", "-")),
            _local(row["created"]),
        )
        for row in rows
    ]
    _print_table(titles, [tuple(" ".join(clean(cell).split()) for cell in line) for line in cells])


def _print_table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for title in titles:
            table.add_column(title, overflow="fold")
        for line in lines:
            table.add_row(*(Text(cell) for cell in line))
        Console().print(table)
        return
    widths = [max(len(line[i]) for line in (titles, *lines)) for i in range(len(titles))]
    for line in (titles, *lines):
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _local(created: object) -> str:
    try:
        return f"{datetime.fromisoformat(str(created)).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return "-"


def _show(arguments: argparse.Namespace) -> int:
    run = resolve_run(arguments.reference, arguments.output)
    problems: list[str] = []
    config, summary = (_readable(read, problems) for read in (lambda: run.config, lambda: run.summary))
    manifest = _readable(lambda: run.manifest, problems)
    if arguments.json:
        whole = {**run.info, "id": run.id, "status": run.status, "path": run.place, "problems": problems}
        data = None if manifest is None else manifest.to_json()
        found = {"summary": summary, "config": config or {}, "data": data, "events": run.events()}
        print(json_text({**whole, **found}, indent=2))
    else:
        sections = {**_sections(run, config or {}, summary or {}, manifest), "damaged": problems}
        for title, lines in sections.items():
            if lines:
                print("\n".join([title, *(f"  {clean(line)}" for line in lines), ""]))
    return DataError.exit_code if problems else 0


def _readable(read: Callable[[], T | None], problems: list[str]) -> T | None:
    """What `read` gives, or nothing and one problem more: the rest of a damaged run is worth seeing."""
    try:
        return read()
    except DataError as error:
        problems.append(str(error))
        return None


def _sections(run: Run, config: Row, summary: Row, manifest: Manifest | None) -> dict[str, list[str]]:
    info, config = run.info, dotted(config)
    told = run.status == "finished" or info.get("reason") == "signal"  # by the ending
    reason = f": {info['reason']}" if info.get("reason") and not told else ""
    done = f"step {run.ending.steps_done}, attempt {info.get('attempt', 1)}"
    files = [name for name in _FILES.split() if (run.path / name).exists()]
    events = [f"{_clock(event)}  {event.get('kind')}: {event.get('message')}" for event in run.events()[-8:]]
    return {
        clean(run.id): [
            f"{run.ending.text}{reason}",
            _headline_line(summary.get("headline")),
            *_words(run, config, summary),
            done,
            f"created {_local(info.get('created'))}",
        ],
        "configuration": [f"{key}: {_yaml(value)}" for key, value in config.items() if _is_highlight(key)],
        "data": [] if manifest is None else [*manifest.text().split("; "), *manifest.notes],
        "last events": events,
        "files": [str((run.mirror or run.path) / name) for name in files],
        "next": _next_commands(run, config),
    }


def _words(run: Run, config: Row, summary: Row) -> list[str]:
    """What a reader of the headline should know."""
    headline = summary.get("headline")
    name = headline["name"] if isinstance(headline, dict) else "accuracy"
    steps, half = summary.get("by_inner_step"), headline.get("ci95") if isinstance(headline, dict) else None
    best = ""
    if isinstance(steps, list) and isinstance(half, float) and all(isinstance(step, float) for step in steps):
        best = better_before(name, axis_of(summary.get("axis"), steps), steps, half)
    notes = (classes_text(name, summary.get("over_classes")), best, overfitting(run.metrics(), config))
    return [note for note in notes if note]


def _headline_line(headline: Row | None) -> str:
    if not headline:
        return "no headline yet"
    return f"{headline.get('split')} {_headline_text(headline)} {over_text(headline)}"


def _is_highlight(key: str) -> bool:
    return key.startswith(("algorithm.", "tasks.", "model.")) or key in ("seed", "steps", "meta_batch_size")


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").rstrip()


def _clock(event: dict[str, Any]) -> str:
    try:
        return f"{datetime.fromtimestamp(event['time']):%Y-%m-%d %H:%M:%S}"
    except (KeyError, TypeError, ValueError, OverflowError, OSError):  # a row that is not ours
        return "-"


def _next_commands(run: Run, config: Row) -> list[str]:
    """Commands that make sense now, of those that are installed."""
    path = shlex.quote(run.place)
    ended_early = run.status in ("stopped", "failed", "lost") or run.ending.step < run.ending.steps
    trust = trust_flag(config)
    wanted = [("train", f"--resume {path}{trust}")] if ended_early else []
    if run.status == "finished":
        wanted += [("evaluate", f"{path}{trust}")]
    if run.mirror is None:
        wanted += [("report", f"{path} -o {layout.REPORT}"), ("dashboard", shlex.quote(str(run.path.parent)))]
    return [f"raymeta {name} {rest}" for name, rest in wanted if find_spec(f"raymeta.{name}")]


def _compare(arguments: argparse.Namespace) -> int:
    from raymeta.runs.compare import comparison  # numpy, which `ls` does not wait for

    runs = without_repetition([resolve_run(reference, arguments.output) for reference in arguments.references])
    if len(runs) < 2:
        raise ConfigError("name two runs or more to compare")
    found = comparison(runs)
    if arguments.json:
        print(json_text(found, indent=2))
        return 0
    lines = [
        (row["id"], row["ending"], f"{row['step']:,}/{row['steps']:,}", _headline_text(row["headline"]))
        for row in found["runs"]
    ]
    _print_table(("run", "status", "steps", "headline"), [tuple(clean(cell) for cell in line) for line in lines])
    if found["paired"] is not None:
        say("\n" + "\n".join(_paired_lines(found["paired"])))
    cells = [
        tuple(clean("-" if cell is None else _yaml(cell)) for cell in row["values"].values())
        for row in found["differences"]
    ]
    if cells:
        print()
        keys = [clean(row["key"]) for row in found["differences"]]
        titles = ("option", *(clean(row["id"]) for row in found["runs"]))
        _print_table(titles, [(key, *line) for key, line in zip(keys, cells, strict=True)])
    return 0


def _paired_lines(pairs: Row) -> list[str]:
    lines = [
        f"{clean(row['label'])} − {clean(pairs['reference'])}: "
        f"{difference_text(pairs['score'], row['difference'], row['ci95'])} "
        "(paired, same test tasks)"
        for row in pairs["rows"]
    ]
    lines += [f"{clean(label)}: scored on other test tasks, not paired" for label in pairs["left_out"]]
    return [*lines, pairs["note"]] if pairs["note"] else lines


def _export(arguments: argparse.Namespace) -> int:
    from raymeta.runs.export import export  # tensorboardX and numpy, which `ls` does not wait for

    runs = without_repetition([resolve_run(reference, arguments.output) for reference in arguments.references])
    for run, name in zip(runs, told_apart(runs), strict=True):
        for path in export(run, arguments.format, arguments.out, name=name):
            say(str(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
