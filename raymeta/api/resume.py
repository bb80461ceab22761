"""Continuing a run: which options may change, from which checkpoint it goes on, and what it has taken so far."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raymeta.config.load import Loaded, Override, load_config
from raymeta.config.schema import RunConfig
from raymeta.engine.driver.checkpoint import Checkpoint, CheckpointStore
from raymeta.errors import CheckpointError, ConfigError
from raymeta.options import FREE_ON_RESUME, marked
from raymeta.runs import layout
from raymeta.runs.inside import require_no_way_out
from raymeta.runs.read import Run, resolve_run
from raymeta.runs.restore import restore
from raymeta.runs.rows import read_rows
from raymeta.runs.seals import require_recorded
from raymeta.system.remote import is_uri

DEFAULT_OUTPUT: str = RunConfig.model_fields["output"].default


class Resumed(NamedTuple):
    """A run to go on with, here on this disk; the option that mirrors it where it came from, if anywhere; notes."""

    run: Run
    mirror: dict[str, str]
    notes: list[str]


def run_to_resume(reference: str, output: str = DEFAULT_OUTPUT) -> Resumed:
    """Find the run; one of a store is restored into `output`, or into results/ where that is a URI too."""
    found = resolve_run(reference, output)
    if found.mirror is None:
        return Resumed(found, {}, [])
    path, notes = restore(found.mirror, Path(DEFAULT_OUTPUT if is_uri(output) else output))
    return Resumed(Run.open(path), {"mirror": found.mirror.parent.uri}, notes)


def resumed_config(
    run: Run, options: Mapping[str, Any] | Sequence[Override], files: Sequence[Path] = (), *, trust: bool = False
) -> Loaded:
    """A run's configuration with the options that may change; raises `ConfigError` for the others.

    Files and options that the run was started with may be given again: they change nothing. Where work happens and what
    is written where they have to say again, and import paths of the run that they do not give need `trust`.
    """
    if not trust:
        require_no_way_out(run.path)
    require_recorded(run.path, run.info.get("sha256"))
    own = run.path / layout.CONFIG
    loaded = load_config(files=[own, *files], overrides=options, trust=trust)
    before = load_config(files=[own], trust=trust).config
    before = before.model_copy(update=_recorded_choices(before, before))
    after = loaded.config.model_copy(update=_recorded_choices(before, loaded.config))
    changed = [key for key in type(after).model_fields if getattr(before, key) != getattr(after, key)]
    free = {*marked(RunConfig, FREE_ON_RESUME), *(("compile",) if before.compile is True else ())}
    if refused := [key for key in changed if key not in free]:
        raise ConfigError(
            f"--resume {run.id} cannot change {', '.join(refused)}, which would change the result: leave it out, or "
            f"start a new run with -c {run.path / layout.CONFIG}. A resumed run may change "
            f"{', '.join(sorted(free))}"
        )
    _require_same_rates(run, before, after)
    loaded.left_out.pop("output", None)  # a run goes on where it is
    output = os.fsencode(run.path.parent).decode(errors="replace")
    return loaded._replace(config=after.model_copy(update={"output": output}))


def _recorded_choices(before: RunConfig, asked: RunConfig) -> dict[str, Any]:
    """What the rules chose at the start, in place of `auto` that is given again. Runs of old were not compiled."""
    chosen = {"vectorize": before.vectorize, "compile": before.compile is True}
    return {name: value for name, value in chosen.items() if getattr(asked, name) == "auto"}


def _require_same_rates(run: Run, before: RunConfig, after: RunConfig) -> None:
    """Raise `ConfigError` where steps that are done would have had other rates in a run of as many steps as asked.

    The rate of a falling schedule is a function of all steps: it would jump, and the result be that of no single run.
    """
    done = [int(name.removeprefix("step-")) for name in CheckpointStore(run.path / layout.CHECKPOINTS).names()[:1]]
    samples = {step for last in done for step in (0, 1, last // 2, last - 1) if 0 <= step < last}
    if all(before.outer.lr_at(step, before.steps) == after.outer.lr_at(step, after.steps) for step in samples):
        return
    raise ConfigError(
        f"--resume {run.id} cannot change steps from {before.steps} to {after.steps}: outer.schedule "
        f"{before.outer.schedule} moves the rate over all steps, so that the {done[0]} that are done had other rates "
        f"than in a run of {after.steps}. Leave steps out, or start a new run with -c {run.path / layout.CONFIG} "
        f"--steps {after.steps}"
    )


def last_checkpoint(run: Run, steps: int) -> tuple[Checkpoint | None, list[str]]:
    """Where `run` goes on if it is to have `steps` (None: at step 0), and what a person should be warned of.

    Raises:
        CheckpointError: it had checkpoints, and none can be read.
        ConfigError: more steps than `steps` are done.
    """
    checkpoint, problems = CheckpointStore(run.path / layout.CHECKPOINTS).load_last()
    if checkpoint is None:
        _require_none_was_saved(run)
        done = max((row["step"] for row in run.metrics()), default=0)
        return None, [f"it ended at step {done}, before its first checkpoint: it starts again"] if done else []
    if checkpoint.step > steps:
        raise ConfigError(
            f"--resume {run.id}: steps {steps} is below the {checkpoint.step} that are done: leave it out to keep "
            f"them, or start a new run with -c {run.path / layout.CONFIG} --steps {steps}"
        )
    return checkpoint, [f"{problem}: the checkpoint of step {checkpoint.step} is used" for problem in problems]


def _require_none_was_saved(run: Run) -> None:
    """A run that ended by itself, or that noted a checkpoint, has saved one."""
    saved = [event.get("step") for event in run.events() if event.get("kind") == "checkpoint"]
    if saved or run.info.get("status") in ("finished", "stopped"):
        last = saved[-1] if saved else run.info.get("step")
        raise CheckpointError(
            f"{run.path / 'checkpoints'} holds no checkpoint, although the one of step {last} was saved there: put "
            f"the folder back from a copy, or start a new run with -c {run.path / layout.CONFIG}"
        )


def spent_s(run: Run) -> float:
    """Seconds that the attempts so far took, each from the first to the last thing it wrote."""
    times: dict[Any, list[float]] = defaultdict(list)
    for row in [*run.events(), *read_rows(run.path / layout.METRICS)[0]]:
        if isinstance(row.get("time"), int | float):
            times[row.get("attempt")].append(row["time"])
    return sum(max(values) - min(values) for values in times.values())
