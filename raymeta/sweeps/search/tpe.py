"""Optuna: the tree-structured Parzen estimator, and how much each option mattered."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from raymeta.errors import EnvironmentProblem
from raymeta.sweeps.file.schema import Tpe
from raymeta.sweeps.file.space import Choice, Dimension, Interval, Point, Space, Tried

LEAST_TRIALS = 4
"""Fewer scores than this say nothing about importance."""


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise EnvironmentProblem("search tpe needs Optuna: pip install 'raymeta[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def ask(space: Space, history: Sequence[Tried], *, seed: int, options: Tpe) -> Point:
    """What TPE tries after `history`; running trials count as bad ones, so that it does not try them twice."""
    optuna = _optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks arguments as experimental
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=options.startup, n_ei_candidates=options.candidates, constant_liar=True, seed=seed
        )
    study = _study(optuna, space, history, sampler)
    return _suggest(space, study.ask())


def importance(space: Space, history: Sequence[Tried]) -> dict[str, float]:
    """Share of each key in what separates good configurations from others (PED-ANOVA, Watanabe et al., IJCAI 2023).

    Empty where too few trials have scores, or Optuna is absent. Keys under choices are judged among the trials that
    have them.
    """
    scored = [tried for tried in history if tried.score is not None and math.isfinite(tried.score)]
    try:
        optuna = _optuna()
    except EnvironmentProblem:
        return {}
    if len(scored) < LEAST_TRIALS or len({tried.score for tried in scored}) < 2:
        return {}
    study = _study(optuna, space, scored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    keys: dict[str, float] = {}
    for dimension in space.all():
        if dimension.path in found:
            keys[dimension.key] = max(keys.get(dimension.key, 0.0), float(found[dimension.path]))
    return dict(sorted(keys.items(), key=lambda item: -item[1]))


def _study(optuna: Any, space: Space, history: Sequence[Tried], sampler: Any = None) -> Any:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = optuna.trial.TrialState
    for point, score in history:
        dimensions = [d for d in space.walk(point) if not d.fixed]
        running, failed = score is None, score is not None and not math.isfinite(score)
        study.add_trial(
            optuna.trial.create_trial(
                state=states.RUNNING if running else states.FAIL if failed else states.COMPLETE,
                params={d.path: _encoded(d, point) for d in dimensions},
                distributions={d.path: _distribution(optuna, d) for d in dimensions},
                value=None if running or failed else score,
            )
        )
    return study


def _encoded(dimension: Dimension, point: Point) -> Any:
    """The value as Optuna knows it: the position of a choice, as lists and mappings are no categories there."""
    value = point[dimension.key]
    return dimension.domain.index(value) if isinstance(dimension.domain, Choice) else value


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    domain = dimension.domain
    if isinstance(domain, Choice):
        return optuna.distributions.CategoricalDistribution(tuple(range(len(domain.options))))
    if domain.whole:
        return optuna.distributions.IntDistribution(domain.low, domain.ends[1], step=int(domain.step or 1))
    return optuna.distributions.FloatDistribution(*map(float, domain.ends), log=domain.log, step=domain.step)


def _suggest(space: Space, trial: Any) -> Point:
    point = Point()
    for dimension in space.dimensions:
        domain = dimension.domain
        if isinstance(domain, Interval):
            value = _number(trial, dimension.path, domain)
            point[dimension.key] = domain.clip(value)
            continue
        index = 0
        if not dimension.fixed:
            index = trial.suggest_categorical(dimension.path, tuple(range(len(domain.options))))
        option = domain.options[index]
        point |= {dimension.key: option.value} | _suggest(option.below, trial)
    return point


def _number(trial: Any, path: str, domain: Interval) -> float:
    low, high = domain.ends
    value: float
    if domain.whole:
        value = trial.suggest_int(path, low, high, step=int(domain.step or 1))
    else:
        value = trial.suggest_float(path, float(low), float(high), log=domain.log, step=domain.step)
    return value
