"""Whether the parts of a sweep agree with each other: search with space, scheduler with steps, metric with tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from raymeta.config.describe import all_keys
from raymeta.config.variants import SECTIONS
from raymeta.sweeps.file.schema import (
    Asha,
    EvolutionSearch,
    GridSearch,
    MedianStopping,
    Pbt,
    RandomSearch,
    RaySearch,
    Tpe,
)
from raymeta.sweeps.file.space import Choice, Interval, Space
from raymeta.sweeps.file.sweep import metric_of
from raymeta.trackers.scores import name_in, score_named

if TYPE_CHECKING:
    from raymeta.sweeps.file.sweep import Sweep

Finding = tuple[tuple[str, ...], str]
"""Where in the file, and what is wrong."""

_ARCHITECTURE = ("model", "tasks")


def is_architecture(key: str) -> bool:
    """Whether a key decides which parameters there are, so that it cannot change while a trial goes on."""
    section = key.partition(".")[0]
    return section in _ARCHITECTURE or key in SECTIONS


def mutable_keys(sweep: Sweep) -> list[str]:
    """The keys that population-based training mutates."""
    scheduler = sweep.file.scheduler
    given = scheduler.mutate if isinstance(scheduler, Pbt) else None
    searched = [d.key for d in sweep.space.dimensions if not d.fixed]
    return [key for key in searched if not is_architecture(key)] if given is None else given


def disagreements(sweep: Sweep) -> Iterator[Finding]:
    """Everything in the file that is right by itself and wrong together."""
    yield from _metric(sweep)
    yield from _search(sweep)
    yield from _scheduler(sweep)
    yield from _resources(sweep)
    if sweep.report_every > sweep.steps:
        yield ("report_every",), f"report_every {sweep.report_every} is more than the {sweep.steps} steps of a trial"


def _metric(sweep: Sweep) -> Iterator[Finding]:
    reported = metric_of(sweep.first)
    if sweep.metric != reported:
        yield ("metric",), f"metric {sweep.metric} is not reported for {sweep.first.tasks.goal}: write {reported}"
    elif sweep.mode != score_named(name_in(reported)).better:
        yield ("mode",), f"mode {sweep.mode} would look for the worst {sweep.metric}: leave it out"


def _search(sweep: Sweep) -> Iterator[Finding]:
    search, space = sweep.file.search, sweep.space
    if isinstance(search, GridSearch):
        for dimension in space.all():
            if isinstance(dimension.domain, Interval):
                yield ("space", dimension.key), f"{dimension.key} is a range, but search grid needs values: use choice"
        if sweep.file.samples > 1:
            yield ("samples",), "samples counts random draws, and search grid draws nothing: leave it out, use repeats"
        return
    if isinstance(search, RandomSearch):
        yield from _hidden_grids(space)
        drawn = [d for d in space.all() if isinstance(d.domain, Interval) or not d.domain.crossed]
        if sweep.file.samples > 1 and not drawn and not isinstance(sweep.file.scheduler, Pbt):
            text = f"samples {sweep.file.samples} would be equal, as the space has nothing to draw"
            yield ("samples",), f"{text}: leave it out, or write repeats for other seeds"
        return
    for dimension in space.all():
        if isinstance(dimension.domain, Choice) and dimension.domain.crossed and not dimension.fixed:
            yield ("space", dimension.key), f"{dimension.key} is a grid, but search {search.name} chooses: use choice"
    if all(dimension.fixed for dimension in space.all()):
        yield ("space",), f"search {search.name} has nothing to choose: the space holds plain values only"
    if isinstance(search, EvolutionSearch) and sweep.file.samples <= search.population:
        yield (
            ("samples",),
            f"samples {sweep.file.samples} never leaves the first population of {search.population}, which is random: "
            "raise samples or lower search.population",
        )
    if isinstance(search, RaySearch) and any(_conditional(space)):
        yield ("search",), f"search {search.name} takes no keys under choices: use random, grid, tpe or evolution"


def _hidden_grids(space: Space, drawn: bool = False) -> Iterator[Finding]:
    for dimension in space.dimensions:
        if not isinstance(dimension.domain, Choice):
            continue
        if drawn and dimension.domain.crossed and not dimension.fixed:
            yield ("space",), f"{dimension.key} is a grid under a choice that is drawn: make that one a grid too"
        for option in dimension.domain.options:
            yield from _hidden_grids(option.below, drawn or not dimension.domain.crossed)


def _conditional(space: Space) -> Iterator[str]:
    for dimension in space.dimensions:
        if isinstance(dimension.domain, Choice) and not dimension.fixed:
            yield from (below.key for option in dimension.domain.options for below in option.below.dimensions)


def _scheduler(sweep: Sweep) -> Iterator[Finding]:
    scheduler = sweep.file.scheduler
    at = ("scheduler", "grace_period")
    if isinstance(scheduler, Asha | MedianStopping) and (scheduler.grace_period or 0) > sweep.steps:
        yield at, f"grace_period {scheduler.grace_period} is more than the {sweep.steps} steps of a trial"
    if not isinstance(scheduler, Pbt):
        return
    at = ("scheduler", "mutate")
    if (scheduler.perturbation_interval or 0) >= sweep.steps:
        yield ("scheduler", "perturbation_interval"), f"no exchange comes before the last of {sweep.steps} steps"
    if not isinstance(sweep.file.search, RandomSearch):
        yield ("search",), f"pbt chooses by itself: search {sweep.file.search.name} does not go with it, leave it out"
    if any(_conditional(sweep.space)):
        yield ("space",), "pbt takes no keys under choices: an exchange would need keys that its receiver does not have"
    searched = [d.key for d in sweep.space.dimensions if not d.fixed]
    for key in scheduler.mutate or []:
        if is_architecture(key):
            yield at, f"pbt cannot mutate {key}: parameters are copied between trials, so the architecture stays"
        elif key not in searched:
            yield at, f"pbt cannot mutate {key}: it is not in the space, which has {', '.join(searched) or 'nothing'}"
    if not mutable_keys(sweep):
        yield at, "pbt has nothing to mutate: put a key that is not of the architecture into the space"
    if sweep.file.repeats > 1:
        yield ("repeats",), "pbt exchanges parameters between trials, so repeats would not be independent: leave it out"
    if sweep.file.samples * len(sweep.space.crossed()) < 2:
        yield ("samples",), "pbt needs a population: write samples of at least 2, better 8"


def _resources(sweep: Sweep) -> Iterator[Finding]:
    resources = sweep.file.resources
    if sweep.first.device == "cuda" and not resources.gpus_per_worker:
        yield ("resources",), "device is cuda, but trials have no GPU: write resources.gpus_per_worker"
    known = all_keys() + [f"{section}.name" for section in SECTIONS]
    for i, rule in enumerate(resources.when):
        for key in rule.if_:
            if key not in known:
                yield ("resources", "when", str(i), "if", key), f"resources.when: there is no option {key}"


def adaptive(sweep: Sweep) -> bool:
    """Whether the next configuration depends on the results of those before."""
    return isinstance(sweep.file.search, Tpe | EvolutionSearch | RaySearch)
