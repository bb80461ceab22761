"""The page of one run. Adaptation is the subject and comes first."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raymeta.errors import DataError
from raymeta.runs import layout
from raymeta.system.their_code import trust_flag
from raymeta.trackers.axes import Axis
from raymeta.trackers.names import OPERATION_SHARES, OPERATION_USES
from raymeta.trackers.over_classes import read_over_classes
from raymeta.trackers.scores import over_text, score_named, value_text, values_of
from raymeta.views.figures import adaptation, learning, optimizers, weights, workers
from raymeta.views.figures.adaptation import Course
from raymeta.views.figures.style import Spec, is_number
from raymeta.views.pages.document import (
    Block,
    Page,
    Section,
    chart,
    code,
    count,
    duration,
    fact,
    intervals_of,
    note,
    plain,
    score,
    section,
    table,
    when,
)
from raymeta.views.pages.episodes import read_episodes
from raymeta.views.sources.files import read_bounded
from raymeta.views.sources.run import RunSource

LOG_ROWS = 200
SHOWN_FILES = [name for name in layout.PLAIN if name not in (layout.RUN, layout.DATA)]

Picture = Callable[[Path], str]


def embedded(path: Path) -> str:
    """A picture as a data address, for a page without a server."""
    try:
        return "data:image/png;base64," + base64.b64encode(read_bounded(path)).decode()
    except DataError:
        return ""


def run_page(source: RunSource, *, picture: Picture = embedded) -> Page:
    """Everything there is to see of a run."""
    run = source.run
    return {
        "kind": "run",
        "id": source.id,
        "title": run.name,
        "status": run.status,
        "ending": run.ending.how,
        "created": _created(run.info),
        "live": run.status == "running",
        "facts": _facts(source),
        "sections": [s for s in _sections(source, picture) if s["blocks"]],
    }


def run_figures(source: RunSource) -> dict[str, Spec]:
    """All figures of a run by name."""
    rows, validations, axis = source.metrics(), source.validations(), source.axis
    figures = _test_figures(source, axis)
    figures["scores"] = learning.scores(rows, validations, chance=_chance(source), axis=axis)
    if axis is not None:
        figures["validation_by_inner_step"] = adaptation.validation_by_inner_step(validations, axis=axis)
    figures["losses"] = learning.losses(rows, axis)
    if any(name in row for row in rows for name in OPERATION_SHARES):
        figures["architecture"] = learning.architecture(rows)
    if any(name in row for row in rows for name in OPERATION_USES):
        figures["augmentation"] = learning.augmentation(rows)
    if source.weights:
        figures["weight_by_loss"] = weights.weight_by_loss(source.weights)
    if source.optimizers:
        figures["optimizers"] = optimizers.optimizer_curves(source.optimizers)
    figures["optimisation"] = learning.optimisation(rows)
    figures["speed"] = learning.speed(rows)
    snapshots = source.workers()
    figures["worker_rates"], figures["worker_shares"] = workers.rates(snapshots), workers.shares(snapshots)
    return figures


def _test_figures(source: RunSource, axis: Axis | None) -> dict[str, Spec]:
    """Of a method without inner steps there is no curve, only the spread."""
    test = source.evaluation
    if not test:
        return {}
    name = str(test["headline"].get("name"))
    by_step = values_of(name, test["by_inner_step"]) or [float("nan")]
    spread = adaptation.spread(test["values"], score=name, before=by_step[0], axis=axis)
    if axis is None:
        return {"spread": spread}
    course = Course("test tasks", by_step, intervals_of(test))
    return {"by_inner_step": adaptation.by_inner_step([course], score=name, axis=axis), "spread": spread}


def _chance(source: RunSource) -> float | None:
    way = source.config.get("tasks.way")
    return 1 / way if isinstance(way, int) and way > 0 else None


def _sections(source: RunSource, picture: Picture) -> list[Section]:
    figures = run_figures(source)
    charts = {name: chart(name, spec) for name, spec in figures.items()}
    items, damaged = read_episodes(source.path, picture)
    subject = [charts.get("by_inner_step"), charts.get("spread"), charts["scores"]]
    subject.append(charts.get("validation_by_inner_step"))
    return [
        section("why", "What happened", _ending(source)),
        section("adaptation", "Adaptation" if source.axis else "Scores", subject),
        section("episodes", "Episodes", _viewer(items, damaged)),
        section("optimizers", "Tuned optimisers", [charts.get("optimizers")]),
        section("architecture", "Architecture", [charts.get("architecture"), *_found(source, but="policy")]),
        section("augmentation", "Changes of images", [charts.get("augmentation"), *_found(source, only="policy")]),
        section("weights", "Weights of training examples", [charts.get("weight_by_loss")]),
        section("learning", "Learning", [charts["losses"], charts["optimisation"], charts["speed"]]),
        section("workers", "Workers", [charts["worker_rates"], charts["worker_shares"], _worker_table(source)]),
        section("configuration", "Configuration", _configuration(source)),
        section("log", "Log", [_log(source)]),
        section("files", "Files", [_files(source)]),
    ]


def _ending(source: RunSource) -> list[Block]:
    """Why the run is not running any more, where that is not simply that it is finished."""
    run = source.run
    blocks = [note(problem, "bad") for problem in source.problems + source.evaluation_problems]
    reason = str(run.info.get("reason") or "")
    resume = code("Continue it", f"raymeta train --resume {shlex.quote(source.place)}{trust_flag(source.config)}")
    if run.status == "failed":
        blocks += [note(f"The run failed. {reason}", "bad")]
    elif run.status == "lost":
        text = "Its process is gone without a word (killed, out of memory, or the machine went down)."
        blocks += [note(f"The run is lost. {reason or text}", "bad"), resume]
    elif run.status == "finished" and run.ending.how != "finished":
        early = note(f"{run.ending.text.capitalize()} steps, and tested: with more steps it may score better.")
        blocks += [early, *([resume] if source.place == str(source.path) else [])]
    elif run.status == "stopped":
        blocks += [note(f"The run was stopped ({reason or 'no reason is written'}); a checkpoint is saved."), resume]
    return blocks


def _found(source: RunSource, *, only: str | None = None, but: str | None = None) -> list[Block]:
    """What a search found, by name."""
    found = source.summary.get("found")
    named = found.items() if isinstance(found, dict) else ()
    return [code(str(name), str(value)) for name, value in named if name != but and only in (None, name)]


def _facts(source: RunSource) -> list[dict[str, str]]:
    info, config, headline = source.run.info, source.config, source.headline
    facts = [fact("Test score", score(headline), _score_hint(headline))]
    test = source.evaluation
    name = str(headline["name"]) if headline else ""
    by_step = values_of(name, test.get("by_inner_step", {})) if test else None
    if few := read_over_classes(test.get("over_classes")):
        half = f"± {value_text(name, few.ci95)}" if math.isfinite(few.ci95) else "–"
        hint = f"95 % interval over the {few.classes} test classes; one over episodes says nothing of other classes"
        facts.append(fact("Over classes", half, hint))
    if by_step and (axis := source.axis):
        span = f"{plain(by_step[0], name)} → {plain(by_step[-1], name)}"
        facts.append(fact(axis.both.capitalize(), span, axis.end(len(by_step))))
    elif not headline and (validations := source.validations()):
        facts.append(fact("Validation", score(validations[-1]), f"at step {validations[-1]['step']:,}"))
    done, steps = info.get("step"), info.get("steps")
    facts.append(fact("Outer steps", f"{count(done)} of {count(steps)}", _share(done, steps)))
    facts.append(fact("Speed", _speed(source), "tasks per second"))
    if "wall_s" in source.summary:
        facts.append(fact("Time", duration(source.summary["wall_s"])))
    kind = " · ".join(str(config[k]) for k in ("algorithm.name", "tasks.name", "model.name") if k in config)
    facts.append(fact("Method", kind or "–", f"seed {config['seed']}" if "seed" in config else ""))
    if machine := _machine(source):
        facts.append(fact("Machine", machine[0], ", ".join(machine[1:])))
    if data := _data(source):
        facts.append(fact("Data", data[-1], "; ".join(data[:-1])))
    return facts


def _machine(source: RunSource) -> list[str]:
    """The host, and the versions and devices that the run was made with."""
    found = source.environment
    versions = [f"{name} {found[name]}" for name in ("raymeta", "torch", "python") if isinstance(found.get(name), str)]
    gpus = found.get("cuda_devices")
    devices = [f"{count(found.get('cpu_count'))} CPUs", *(gpus[:8] if isinstance(gpus, list) else [])] if found else []
    commit = found.get("git_commit")
    told = [*versions, *map(str, devices), *([f"commit {commit[:12]}"] if isinstance(commit, str) else [])]
    return [str(source.run.info.get("host") or "–"), *(text[:100] for text in told)] if told else []


def _data(source: RunSource) -> list[str]:
    """What each split holds, and last the shape of an input, as the run told when it began."""
    told = (event.get("message") for event in source.events() if event.get("kind") == "data")
    return next((text[:300].split("; ") for text in told if isinstance(text, str)), [])


def _created(info: dict[str, Any]) -> str:
    attempt = info.get("attempt")
    return f"created {when(info.get('created'))}" + (f", attempt {attempt}" if attempt not in (None, 1) else "")


def _score_hint(headline: dict[str, Any] | None) -> str:
    if headline is None:
        return "not scored yet"
    name = score_named(str(headline["name"])).title
    return f"{name} {over_text(headline)} of the {headline.get('split')} split, 95 % interval"


def _share(done: object, steps: object) -> str:
    return f"{100 * done / steps:.0f} %" if is_number(done) and is_number(steps) and steps else ""


def _speed(source: RunSource) -> str:
    rate = source.summary.get("tasks_per_s")
    if rate is None:
        rate = source.rate
    return f"{rate:,.0f}" if is_number(rate) else "–"


def _viewer(items: list[dict[str, Any]], damaged: list[str]) -> list[Block]:
    blocks: list[Block] = [{"type": "episodes", "key": "episodes", "items": items}] if items else []
    return blocks + [note(problem, "bad") for problem in damaged]


def _worker_table(source: RunSource) -> Block | None:
    snapshots = source.workers()
    rows = snapshots[-1]["workers"] if snapshots else []
    columns = ("name", "node", "pid", "tasks", "tasks_per_s", "restarts")
    titles = ("Worker", "Node", "Process", "Tasks", "Tasks per second", "Restarts")
    return table("workers", "Workers", titles, [[_cell(row.get(key)) for key in columns] for row in rows])


def _cell(value: object) -> object:
    """A value for a table: numbers stay numbers, so that they sort; short where they are long."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if is_number(value) else str(value)
    return value if value is None or (isinstance(value, int | str) and not isinstance(value, bool)) else str(value)


def _configuration(source: RunSource) -> list[Block | None]:
    rows = [[key, "–" if value is None else str(value)] for key, value in source.config.items()]
    again = code("Run it again", f"raymeta train -c {shlex.quote(str(source.path / layout.CONFIG))}")
    here = bool(rows) and source.place == str(source.path)
    began = code("Begun with", source.command) if source.command else None
    return [table("configuration", "Configuration", ("Option", "Value"), rows), began, again if here else None]


def _log(source: RunSource) -> Block | None:
    rows = [
        [when(event.get("time")), _cell(event.get("step")), str(event.get("kind")), str(event.get("message"))]
        for event in reversed(source.events()[-LOG_ROWS:])
    ]
    return table("log", "Log, newest first", ("Time", "Step", "Kind", "Message"), rows)


def _files(source: RunSource) -> Block | None:
    rows = [
        [{"text": name, "file": name}, path.stat().st_size]
        for name in SHOWN_FILES
        if (path := source.path / name).is_file()
    ]
    return table("files", "Files", ("File", "Bytes"), rows)
