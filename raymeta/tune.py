"""Search learning rates and architectures over a cluster: `python -m raymeta.tune -c FILE [--KEY VALUE ...]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from raymeta.config.arguments import Arguments, Flag, split_arguments
from raymeta.engine.executors.placement import require_known_address
from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.runs import layout
from raymeta.system.command_line import print_result, run_command, say
from raymeta.system.quick_torch import import_torch
from raymeta.system.redact import without_secrets
from raymeta.system.remote import is_uri
from raymeta.trackers.scores import name_in, score_text
from raymeta.trackers.terminal import Mode

FLAGS = (
    Flag(("-c", "--config"), "many", "the sweep file", "FILE"),
    Flag(("--samples",), "one", "configurations to try, in place of the file's", "N"),
    Flag(("--concurrent",), "one", "trials at a time, in place of the file's", "N"),
    Flag(("--time-limit",), "one", "time of the whole sweep, such as 55m, in place of the file's", "TIME"),
    Flag(("--output",), "one", "the sweep lies under DIR/sweeps", "DIR"),
    Flag(("--address",), "one", "Ray cluster to join: auto or HOST:PORT; starts Ray on this machine unless given", "A"),
    Flag(("--resume",), "maybe", "go on with a sweep (a path, an id, or `latest`)", "[SWEEP]"),
    Flag(("--trust",), "nothing", "import the code that the folder of a resumed sweep names"),
    Flag(("--dry-run",), "nothing", "print the first trials and what they take, and stop"),
    Flag(("-q", "--quiet"), "nothing", "only failed trials and the result"),
    Flag(("-v", "--verbose"), "nothing", "show tracebacks"),
    Flag(("--log-format",), "one", "auto, live, plain or json", "MODE"),
    Flag(("--no-color",), "nothing", "no colours (as NO_COLOR)"),
    Flag(("-h", "--help"), "nothing", "show this text"),
)
_SHOWN = 12
"""Trials that a dry run prints."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    verbose = "-v" in argv or "--verbose" in argv
    return run_command("tune", lambda: _tune(argv), verbose=verbose)


def _tune(argv: Sequence[str]) -> int:
    arguments = split_arguments(argv, FLAGS)
    flags = arguments.flags
    if flags.get("help"):
        print(help_text())
        return 0
    mode: Mode = flags.get("log_format", "auto")
    if mode not in get_args(Mode):
        raise ConfigError(f"--log-format {mode} is none of {', '.join(get_args(Mode))}")
    if flags.get("no_color"):
        os.environ["NO_COLOR"] = "1"
    if "resume" not in flags:
        _require_file(flags.get("config", []))

    import_torch()  # which these mistakes do not wait for
    from raymeta.sweeps.tune import driver as tuner

    directory = _directory(arguments)
    if directory is None:
        return 0
    outcome = tuner.run_sweep(
        directory,
        address=flags.get("address"),
        changes=_changes(flags) if "resume" in flags else None,
        overrides=arguments.overrides if "resume" in flags else (),
        trust=bool(flags.get("trust")),
        mode=mode,
        quiet=bool(flags.get("quiet")),
    )
    text = result_text(outcome.directory, outcome.summary, outcome.reason)
    print_result("tune", text, str(outcome.directory / layout.SUMMARY))
    if outcome.reason == "signal":
        return 130
    return 1 if outcome.summary["best"] is None else 0


def _directory(arguments: Arguments) -> Path | None:
    """The folder of the sweep to run, new or resumed; None after a dry run."""
    from raymeta.sweeps.file.load import load_sweep
    from raymeta.sweeps.search.proposer import proposer
    from raymeta.sweeps.tune import driver as tuner

    flags, overrides = arguments
    output = Path(_local(flags.get("output", "results")))
    files = flags.get("config", [])
    if "resume" in flags:
        if given := ["-c"] * bool(files) + [o.key for o in overrides if o.key != "mirror"]:
            raise ConfigError(f"--resume goes on with a sweep as it is: leave {given[0]} out")
        directory = tuner.find_sweep("latest" if flags["resume"] is True else flags["resume"], output)
        if flags.get("dry_run"):
            say(to_go_on_text(directory, _changes(flags), trust=bool(flags.get("trust"))))
            return None
        return directory
    trust = bool(flags.get("trust"))
    sweep = load_sweep(Path(files[0]), overrides=overrides, changes=_changes(flags), trust=trust)
    if "address" in flags:
        require_known_address(flags["address"])
    proposer(sweep)  # before anything is written: its package may be missing
    if flags.get("dry_run"):
        say("\n".join([dry_run_text(sweep), *([] if flags.get("address") else _misfits(sweep))]))
        return None
    tuner.require_machine(sweep, flags.get("address"))  # before anything is written, too
    return tuner.new_directory(sweep, output)


def _require_file(files: Sequence[str]) -> None:
    if len(files) != 1:
        raise ConfigError("a sweep needs its file, one: raymeta tune -c tune_configs/smoke.yaml")
    if not os.path.lexists(files[0]):
        raise ConfigError(f"{files[0]}: there is no such sweep file")


def _misfits(sweep: Any) -> list[str]:
    """What of a sweep this machine could never run; a dry run may be for another one."""
    from raymeta.sweeps.resources import require_fit
    from raymeta.sweeps.tune.driver import this_machine

    try:
        require_fit(sweep, [this_machine()])
    except EnvironmentProblem as error:
        return [f"not on this machine: {error}"]
    return []


def _local(output: str) -> str:
    if is_uri(output):
        raise ConfigError(
            f"--output {without_secrets(output)}: a sweep lies in a local folder; --mirror URI copies its trials"
        )
    return output


def _changes(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the sweep file that flags replace."""
    changes: dict[str, Any] = {}
    for name in ("samples", "concurrent"):
        if name in flags:
            if not flags[name].isdecimal() or int(flags[name]) == 0:
                raise ConfigError(f"--{name} {flags[name]} should be a whole number > 0")
            changes[name] = int(flags[name])
    if "time_limit" in flags:
        changes["time_limit"] = flags["time_limit"]
    return changes


def dry_run_text(sweep: Any) -> str:
    """The first trials of a sweep with what they take; later ones of an adaptive search are not known yet."""
    from raymeta.sweeps.file.space import Tried, describe
    from raymeta.sweeps.resources import share_of
    from raymeta.sweeps.search.proposer import proposer

    source = proposer(sweep)
    repeats = f" x {sweep.file.repeats} seeds" if sweep.file.repeats > 1 else ""
    lines = [f"{sweep.name}: {source.total} configurations{repeats}, {sweep.steps:,} steps each at most"]
    history: list[Tried] = []
    while len(history) < min(source.total, _SHOWN):
        point = source.propose(history)
        if point is None:
            lines.append("  what comes next depends on their results")
            return "\n".join(lines)
        share = share_of(sweep.file.resources, sweep.config(point))
        lines.append(f"  {len(history):04d}  {share}  {describe(point)}")
        history.append(Tried(point, None))
    if source.total > _SHOWN:
        lines.append(f"  and {source.total - _SHOWN} more")
    return "\n".join(lines)


def to_go_on_text(directory: Path, changes: Mapping[str, Any], *, trust: bool = False) -> str:
    """What `--resume` would do with a sweep."""
    from raymeta.sweeps.file.load import load_sweep
    from raymeta.sweeps.records import ENDED, Records
    from raymeta.sweeps.search.proposer import proposer

    sweep = load_sweep(directory / layout.SWEEP, changes=changes, check=False, foreign=True, trust=trust)
    records = Records.load(directory / layout.RECORDS, sweep.file.repeats)
    total, ended = proposer(sweep).total * sweep.file.repeats, records.count(*ENDED)
    begun = len(records.by_id) - ended
    return f"{directory}: {ended} of {total} trials ended, {begun} go on, {total - ended - begun} are to begin"


def result_text(directory: Path, summary: Mapping[str, Any], reason: str | None) -> str:
    """The end of a sweep for people: the best configuration, counts, failures, and what to do next."""
    from raymeta.sweeps.file.space import describe
    from raymeta.sweeps.held_out import lines_of
    from raymeta.sweeps.summary import next_commands, trust_of

    counts, best = summary["counts"], summary["best"]
    lines = [
        f"{counts['finished']} trials finished, {counts['stopped_early']} stopped early, {counts['failed']} failed"
        + (f", {counts['stopped']} to go on ({reason})" if counts["stopped"] else "")
    ]
    lines += [f"trial {t['trial']} failed: {t['reason']}" for t in summary["trials"] if t["status"] == "failed"][:5]
    if best is None:
        lines.append("no trial has a score")
    else:
        score = score_text(name_in(summary["metric"]), best["value"], best["ci95"])
        lines += [f"best: {score}, trial {best['trial']}", f"      {describe(best['params'])}"]
    if summary.get("held_out") is not None:
        lines += lines_of(summary["held_out"])
    if summary["importance"]:
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in summary["importance"].items())
        lines.append(f"importance: {shares}")
    lines.append(f"sweep:  {directory}")
    if reason is not None:
        return "\n".join([*lines, f"continue with:  raymeta tune --resume {directory}{trust_of(directory)}"])
    commands = next_commands(directory) if best is not None else []
    return "\n".join([*lines, *(("next:   " if i == 0 else "        ") + c for i, c in enumerate(commands))])


def help_text() -> str:
    """Flags, and every key of a sweep file with its meaning."""
    from raymeta.config.class_options import options_of
    from raymeta.sweeps.file.schema import Resources, StopRules, SweepFile

    lines = [
        "usage: raymeta tune -c FILE [--KEY VALUE ...]",
        "       raymeta tune --resume [SWEEP]",
        "",
        "Options are configuration keys for all trials. Sweep files to start from: tune_configs/.",
        "",
        "flags",
        *(f"  {', '.join(f.names)} {f.metavar:8} {f.help}" for f in FLAGS),
        "",
        "keys of a sweep file",
        *(f"  {name}: {option.meaning}" for name, option in options_of(SweepFile).items()),
        *(f"  resources.{name}: {option.meaning}" for name, option in options_of(Resources).items()),
        *(f"  stop.{name}: {option.meaning}" for name, option in options_of(StopRules).items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
