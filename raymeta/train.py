"""Meta-train a model: `python -m raymeta.train [-c FILE] [--preset NAME] [--KEY VALUE ...]`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from raymeta.config.arguments import Arguments, Flag, split_arguments
from raymeta.config.help import help_text
from raymeta.config.load import Loaded, Override, dump, finished, merged
from raymeta.config.variants import SECTIONS
from raymeta.errors import ConfigError
from raymeta.runs.overfitting import overfitting
from raymeta.system.command_line import print_result, run_command, say
from raymeta.system.quick_torch import import_torch
from raymeta.system.text import clean, dotted
from raymeta.system.their_code import trust_flag
from raymeta.trackers.axes import axis_of
from raymeta.trackers.base import Tracker
from raymeta.trackers.over_classes import classes_text
from raymeta.trackers.scores import better_before, over_text, score_text
from raymeta.trackers.terminal import Mode, open_terminal

if TYPE_CHECKING:  # torch comes with them, which a mistyped option does not wait for
    from raymeta.engine.driver.loop import StopReason
    from raymeta.runs.read import Run

TRACED_STEPS = 10

FLAGS = (
    Flag(("-c", "--config"), "many", "configuration file on top of the preset; may be repeated", "FILE"),
    Flag(("--resume",), "maybe", "continue a run (a path, a URI, an id, or `latest`)", "[RUN]"),
    Flag(("--trust",), "nothing", "import the code that a run's folder names (--resume, or -c of a file in it)"),
    Flag(("--dry-run",), "nothing", "check configuration and data, build the model, and stop"),
    Flag(("--print-config",), "nothing", "print the resolved configuration as YAML, and stop"),
    Flag(("--profile",), "maybe", f"tell where time goes; record a trace of STEPS steps [{TRACED_STEPS}]", "[STEPS]"),
    Flag(("-q", "--quiet"), "nothing", "only warnings and the result"),
    Flag(("-v", "--verbose"), "nothing", "show tracebacks"),
    Flag(("--log-format",), "one", "auto, live, plain or json", "MODE"),
    Flag(("--no-color",), "nothing", "no colours (as NO_COLOR)"),
    Flag(("-h", "--help"), "nothing", "show this text"),
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    verbose = "-v" in argv or "--verbose" in argv
    return run_command("train", lambda: _train(argv), verbose=verbose)


def _train(argv: Sequence[str]) -> int:
    arguments = split_arguments(argv, FLAGS)
    flags = arguments.flags
    if flags.get("help"):
        print(help_text(FLAGS, arguments.overrides))
        return 0
    if (mode := flags.get("log_format", "auto")) not in get_args(Mode):
        raise ConfigError(f"--log-format {mode} is none of {', '.join(get_args(Mode))}")
    profiled_steps = _profiled_steps(flags)
    loaded, resume = _configuration(arguments)

    from raymeta.api.describe import run_name, without_effect
    from raymeta.api.train import Training

    config, notes = loaded.config, loaded.notes
    if flags.get("print_config"):
        _tell([] if flags.get("quiet") else notes, [*loaded.left_out.values(), *without_effect(config)])
        print(dump(config), end="")
        return 0
    training = Training.of(
        loaded,
        resume=resume,
        command=["raymeta", "train", *argv],
        trackers=lambda title: [_terminal(flags, title, config.steps)],
        profiled_steps=profiled_steps,
        say=lambda text: _announce(flags, text),
    )
    if flags.get("dry_run"):
        _tell([] if flags.get("quiet") else notes, training.warnings)
        say(
            f"{run_name(config)}: configuration and data are good: {training.plan()}, "
            f"{training.built.blueprint.layout.size:,} parameters\n"
            + "\n".join(f"{title}: {text}" for title, text in training.data_lines())
        )
        return 0
    if training.nothing_is_left:
        say(training.plan())
    run = training.execute()
    mirror = None if training.store is None else str(training.store / run.id)
    text = result_text(run, training.reason, mirror=mirror, address=config.address)
    if training.profile is not None and training.profile.num_steps:
        from raymeta.engine.driver.profile import profile_text

        text += f"\n\n{profile_text(training.profile.table())}\n{training.profile.files_text()}"
    print_result("train", text, str(run.path))
    return 130 if training.reason == "signal" else 0


def _configuration(arguments: Arguments) -> tuple[Loaded, Run | None]:
    flags, overrides = arguments
    files, trust = [Path(f) for f in flags.get("config", [])], bool(flags.get("trust"))
    if "resume" not in flags:
        layers = merged(files=files, overrides=overrides, trust=trust)
        sections = (layers.values.get(section) for section in SECTIONS)
        named = [str(section.get("name", "?")) for section in sections if isinstance(section, dict)]
        _tell_first(flags, f"{', '.join(named)}: reading data and building the model")
        import_torch()
        return finished(layers), None

    _tell_first(flags, "reading the run, its data and its checkpoint")
    import_torch()
    from raymeta.api.resume import DEFAULT_OUTPUT, resumed_config, run_to_resume

    reference = "latest" if flags["resume"] is True else flags["resume"]
    output = next((o.value for o in reversed(overrides) if o.key == "output"), DEFAULT_OUTPUT)
    resumed = run_to_resume(reference, str(output))
    mirror = [Override(key, value, "--resume") for key, value in resumed.mirror.items()]
    kept = [o for o in overrides if o.key != "output"]  # it only says where to look
    loaded = resumed_config(resumed.run, [*mirror, *kept], files, trust=trust)
    return loaded._replace(notes=resumed.notes), resumed.run


def _tell_first(flags: Mapping[str, Any], text: str) -> None:
    """One line before torch is imported and the data are read, which may take long."""
    if "torch" not in sys.modules:
        _announce(flags, text)


def _announce(flags: Mapping[str, Any], text: str) -> None:
    silent = ("quiet", "dry_run", "print_config")
    if not any(flags.get(flag) for flag in silent) and flags.get("log_format") != "json":
        print(clean(f"raymeta train: {text}"), file=sys.stderr, flush=True)


def _profiled_steps(flags: Mapping[str, Any]) -> int | None:
    """Steps to trace; None for no profile."""
    asked = flags.get("profile")
    if asked is None:
        return None
    if asked is not True and not (asked.isdecimal() and int(asked)):
        raise ConfigError(f"--profile {asked} is no number of steps: write --profile, or --profile 20")
    if not Path("/dev/nvidiactl").exists():  # torch's tracer, read as torch is imported, calls a missing GPU an error
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return TRACED_STEPS if asked is True else int(asked)


def _tell(notes: Sequence[str], warnings: Sequence[str]) -> None:
    """What the terminal of a run would have told."""
    for kind, texts in (("note", notes), ("warning", warnings)):
        for text in texts:
            print(f"{kind}: {clean(text)}", file=sys.stderr)


def _terminal(flags: Mapping[str, Any], title: str, steps: int) -> Tracker:
    if flags.get("no_color"):
        os.environ["NO_COLOR"] = "1"
    return open_terminal(flags.get("log_format", "auto"), quiet=bool(flags.get("quiet")), title=title, steps=steps)


def result_text(run: Run, reason: StopReason, *, mirror: str | None = None, address: str | None = None) -> str:
    """The end of a run for people: the headline, where the run is, and what to do next.

    A resumed run goes on where its command line says, so `mirror` and `address` have to be given again.
    """
    path, trust = shlex.quote(str(run.path)), trust_flag(run.config)
    folder = shlex.quote(str(run.path.parent))
    if reason == "signal":
        there = f" --address {shlex.quote(address)}" if address else ""
        copy = f" --mirror {shlex.quote(mirror.rpartition('/')[0])}" if mirror else ""
        text = f"stopped with a checkpoint saved in {path}\n"
        text += f"continue with:  raymeta train --resume {path}{there}{copy}{trust}"
        return f"{text}\nor elsewhere:   raymeta train --resume {shlex.quote(mirror)}{trust}" if mirror else text
    summary = run.summary or {}
    headline, steps = summary["headline"], summary["by_inner_step"]
    name, axis = headline["name"], axis_of(summary.get("axis"), steps)
    lines = [
        f"{headline['split']} {score_text(name, headline['value'], headline['ci95'])} {over_text(headline)}"
        + (f", {axis.end(len(steps))}" if axis else ""),
    ]
    notes = (
        classes_text(name, summary.get("over_classes")),
        better_before(name, axis, steps, headline["ci95"]),
        overfitting(run.metrics(), dotted(run.config)),
    )
    lines += [f"note:   {note}" for note in notes if note]
    lines += [f"found:  {name} {value}" for name, value in summary.get("found", {}).items()]
    if summary["stopped_by"] == "time_limit":
        lines.append(f"{run.ending.text}: raymeta train --resume {path}{trust} goes on")
    if axis:
        lines.append(f"{axis.before} {score_text(name, steps[0])}, {axis.after} {score_text(name, steps[-1])}")
    lines += [
        f"scored: the checkpoint of step {summary['scored_checkpoint']} of {summary['steps']} ({_which(summary)}); "
        f"batch norm {summary['batch_norm']}; {summary['tasks_per_s']:.0f} tasks/s",
        f"run:    {path}",
        *([f"mirror: {shlex.quote(mirror)}"] if mirror else []),
        f"next:   raymeta dashboard {folder}",
        f"        raymeta report {path}",
        f"        raymeta evaluate {path}{_more(run)}{trust}",
    ]
    return "\n".join(lines)


def _more(run: Run) -> str:
    """More test episodes than the run had, where there are more."""
    finite = run.summary["headline"]["episodes"] != run.config.get("test_episodes")  # type: ignore[index]
    return "" if finite else " --episodes 1000"


def _which(summary: Mapping[str, Any]) -> str:
    """Why this checkpoint was scored."""
    best, scored = summary["best_step"], summary["scored_checkpoint"]
    if best is None:
        return "the last, as nothing was validated"
    return "best on validation" if best == scored else f"the last, as that of step {best}, the best, cannot be read"


if __name__ == "__main__":
    sys.exit(main())
