"""Train a preset on Ray workers, test it, and compare with its published number; in pieces, where that takes long.

    python benchmarks/reproduce.py omniglot-5w1s-maml --root FOLDER --time-limit 30m

After its time limit a run is tested and its result file written. The same command goes on with it, until its steps are
done. The file says how many of the paper's outer steps those were. It holds the validation curve, and the score of
every test task, from which the interval can be computed again.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from record import RESULTS, record

from raymeta.api.resume import resumed_config
from raymeta.api.train import Training
from raymeta.config import yaml_lines
from raymeta.config.load import load_config
from raymeta.errors import RaymetaError
from raymeta.runs import layout
from raymeta.runs.read import Run
from raymeta.runs.tables import evaluation
from raymeta.trackers.terminal import open_terminal

RUNS = RESULTS.parent / "reproduce"
"""Runs themselves, which are not kept with the project."""


class Published(NamedTuple):
    """A number of a paper: its 95 % interval, 0 where it has none, and outer steps, None where it does not say."""

    value: float | None
    ci95: float
    steps: int | None
    source: str
    margin: float = 0.005
    """How much further than the intervals a run may be from it: half a point, 1.5 in tasks of 20 classes."""


FINN, OF_TWENTY = "Finn et al. 2017, table 1", 0.015
PUBLISHED = {
    "glyphs-5w1s-maml": Published(None, 0, None, "drawn characters, which no paper has"),
    "sinusoid-maml": Published(None, 0, 70_000, "Finn et al. 2017 plot a curve without a table for K = 10"),
    "omniglot-5w1s-maml": Published(0.987, 0.004, 60_000, FINN),
    "omniglot-5w1s-anil": Published(None, 0, None, "Raghu et al. 2020 have tasks of 20 classes only"),
    "omniglot-5w1s-protonet": Published(0.988, 0, None, "Snell et al. 2017, table 1"),
    "omniglot-5w1s-reptile": Published(0.9768, 0.0004, 100_000, "Nichol et al. 2018 (v3), Reptile + transduction"),
    "omniglot-20w1s-maml": Published(0.958, 0.003, 60_000, FINN, OF_TWENTY),
}
SINUSOID = {30_000: {1: (0.411, 0.037), 10: (0.146, 0.018)}}
"""Errors after 1 and 10 inner steps, with their intervals, of another implementation after so many outer steps."""


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PUBLISHED)
    parser.add_argument("--root", help="folder of the data, where the preset needs data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="outer steps, in place of the preset's")
    parser.add_argument("--compile", action="store_true", help="compile whatever the rule of `compile: auto` says")
    parser.add_argument("--time-limit", help="training time of this piece, such as 30m")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="other options")
    parser.add_argument("--output", type=Path, default=RUNS, help="folder of the runs, which pieces go on with")
    try:
        return reproduce(parser.parse_args())
    except RaymetaError as error:
        print(f"reproduce.py: {error}", file=sys.stderr)
        return error.exit_code


def reproduce(arguments: argparse.Namespace) -> int:
    """Train a piece, and write the result file at the end of the last one."""
    pairs = (text.split("=", 1) for text in arguments.set)
    extra = {key: yaml_lines.scalar(value) for key, value in pairs}
    extra |= {"compile": True} if arguments.compile else {}
    folder = arguments.output / name_of(arguments.preset, arguments.steps, extra, arguments.seed)
    options = {**given(arguments), **extra, "output": str(arguments.output)}
    run = piece(arguments.preset, folder, options)
    if run.status != "finished":
        return 130
    path = record(folder.name, content(run, arguments.preset, extra))
    print(path.read_text())
    return 0


def name_of(preset: str, steps: int | None, extra: Mapping[str, object], seed: int) -> str:
    """Name of the run and of its result file, with the options of its tasks: other tasks are another experiment."""
    tasks = [f"{key.removeprefix('tasks.')}-{value}" for key, value in sorted(extra.items()) if is_of_tasks(key)]
    length = [] if steps is None else [f"{steps}steps"]
    return re.sub(r"[^\w.+-]+", "_", "-".join([preset, *tasks, *length, f"seed{seed}"]))


def is_of_tasks(key: str) -> bool:
    """Whether an option says which tasks are met, and not merely where their data lie."""
    return key.startswith("tasks.") and key != "tasks.root"


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of the run that have flags of their own here."""
    options = {
        "workers": arguments.workers,
        "seed": arguments.seed,
        "steps": arguments.steps,
        "time_limit": arguments.time_limit,
        "tasks.root": arguments.root,
    }
    return {key: value for key, value in options.items() if value is not None}


def piece(preset: str, folder: Path, options: dict[str, Any]) -> Run:
    """Begin the run in `folder`, or go on with the one that is there."""
    if (folder / layout.RUN).exists():
        resume = Run.open(folder)
        config = resumed_config(resume, options).config
    else:
        resume, config = None, load_config(preset=preset, overrides=options).config
    return Training(
        config,
        resume=resume,
        directory=folder,
        trackers=lambda title: [open_terminal("plain", quiet=False, title=title, steps=config.steps)],
    ).execute()


def content(run: Run, preset: str, extra: dict[str, object]) -> dict[str, Any]:
    summary, published = run.summary or {}, PUBLISHED[preset]
    return {
        "preset": preset,
        "changed_options": extra,
        "paths": {name: run.config[name] for name in ("vectorize", "compile")},
        "seed": run.config["seed"],
        "workers": run.config["workers"],
        "pieces": run.info["attempt"],
        "summary": summary,
        "values": evaluation(run)["values"],
        "published": published._asdict(),
        **distances(summary, published),
        "other_implementation": others(summary) if preset == "sinusoid-maml" else {},
        "validation": [
            {key: value for key, value in row.items() if key == "step" or key.startswith("val/")}
            for row in run.metrics()
            if any(key.startswith("val/") for key in row)
        ],
    }


def distances(summary: Mapping[str, Any], published: Published) -> dict[str, Any]:
    """How far the score is from the published one, and whether that is within both intervals and the margin."""
    if published.value is None:
        return {"distance_to_published": None, "reproduced": None}
    headline = summary["headline"]
    distance = headline["value"] - published.value
    allowed = math.hypot(headline["ci95"], published.ci95) + published.margin
    return {"distance_to_published": distance, "allowed_distance": allowed, "reproduced": abs(distance) <= allowed}


def others(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Errors of the sinusoid beside those of another implementation after as many steps."""
    ours, theirs = summary["by_inner_step"], SINUSOID.get(summary["steps"], {})
    return {
        f"after_{steps}_inner_steps": {"ours": ours[steps], "theirs": value, "theirs_ci95": ci95}
        for steps, (value, ci95) in theirs.items()
    }


if __name__ == "__main__":
    sys.exit(main())
