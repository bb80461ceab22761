"""Ray Tune's schedulers from their part of a sweep file, told what a killed sweep had seen before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
)

from raymeta.sweeps.file.checks import mutable_keys
from raymeta.sweeps.file.schema import Asha, HyperBand, MedianStopping, Pbt
from raymeta.sweeps.file.space import Choice, Dimension, generator
from raymeta.sweeps.file.sweep import Sweep
from raymeta.sweeps.records import ENDED, Record, Report

SCORE, STEP = "score", "step"
"""Names of the metric and of the time in results."""

_PBT_STREAM = 2**40
"""Index of the random numbers of mutations: beyond all configurations."""


class _RemembersReports:
    """Mixed into a scheduler that judges reports one by one: reports of earlier attempts count as they came."""

    past: dict[str, list[Report]]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        for report in self.past.pop(str(trial), []):
            super().on_trial_result(tune_controller, trial, result_of(report))  # type: ignore[misc]


class Asha_(_RemembersReports, AsyncHyperBandScheduler):  # noqa: N801
    """Ray's ASHA with a memory."""


class Median_(_RemembersReports, MedianStoppingRule):  # noqa: N801
    """Ray's median stopping with a memory."""


def result_of(report: Report) -> dict[str, float]:
    """A report as Tune sees it."""
    return {STEP: report.step, SCORE: report.score}


def scheduler_of(sweep: Sweep, records: Iterable[Record]) -> Any:
    """The scheduler of a sweep. Trials that ended before are added to what it has seen."""
    options = sweep.file.scheduler
    first = getattr(options, "grace_period", None) or sweep.report_every
    known: dict[str, Any] = {"time_attr": STEP, "metric": SCORE, "mode": sweep.mode}
    if isinstance(options, Pbt):
        return _population(sweep, options)
    if isinstance(options, HyperBand):
        return HyperBandScheduler(**known, max_t=sweep.steps, reduction_factor=options.reduction_factor)
    scheduler: Any = FIFOScheduler()  # type: ignore[no-untyped-call]
    if isinstance(options, Asha):
        scheduler = Asha_(
            **known,
            max_t=sweep.steps,
            grace_period=first,
            reduction_factor=options.reduction_factor,
            brackets=options.brackets,
        )
    elif isinstance(options, MedianStopping):
        scheduler = Median_(**known, grace_period=first, min_samples_required=options.min_samples_required)
    _remind(scheduler, records)
    return scheduler


def _remind(scheduler: Any, records: Iterable[Record]) -> None:
    if not isinstance(scheduler, _RemembersReports):
        return
    scheduler.past = {record.id: record.reports for record in records}
    for record in records:
        if record.status in ENDED and record.reports:
            trial = _Past(record.id)
            scheduler.on_trial_add(None, trial)
            scheduler.on_trial_complete(None, trial, result_of(record.reports[-1]))  # type: ignore[attr-defined]


class _Past:
    """A trial that ended in an earlier attempt, as far as a scheduler looks at it."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id

    def __str__(self) -> str:
        return self.trial_id


def _population(sweep: Sweep, options: Pbt) -> Any:
    searched = {d.key: d for d in sweep.space.dimensions if d.key in mutable_keys(sweep)}
    rng = generator(sweep.file.seed, _PBT_STREAM)

    def into_range(config: dict[str, Any]) -> dict[str, Any]:
        point = config["trial"]["point"]
        for key, dimension in searched.items():
            if not isinstance(dimension.domain, Choice):
                point[key] = dimension.domain.clip(point[key])
        return config

    return PopulationBasedTraining(
        time_attr=STEP,
        metric=SCORE,
        mode=sweep.mode,
        perturbation_interval=options.perturbation_interval or sweep.report_every,
        quantile_fraction=options.quantile_fraction,
        resample_probability=options.resample_probability,
        hyperparam_mutations={"trial": {"point": {key: _values(d, rng) for key, d in searched.items()}}},
        custom_explore_fn=into_range,
        log_config=False,
    )


def _values(dimension: Dimension, rng: Any) -> list[Any] | Callable[[], Any]:
    domain = dimension.domain
    if isinstance(domain, Choice):
        return [option.value for option in domain.options]
    return lambda: domain.draw(rng)
