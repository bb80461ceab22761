"""Search algorithms that Ray Tune offers beside its own, where their packages are installed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.tune.search import SEARCH_ALG_IMPORT

from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.sweeps.file.schema import RaySearch
from raymeta.sweeps.file.space import Choice, Dimension, Interval, Point, Space, Tried

_OURS = ("self", "space", "metric", "mode", "points_to_evaluate", "evaluated_rewards")


class RaySearcher:
    """A proposer around one of Ray's searchers, which keeps a state: a resumed sweep tells it what it can be told."""

    def __init__(self, space: Space, total: int, options: RaySearch) -> None:
        """Raises `EnvironmentProblem` where its package is missing, `ConfigError` for arguments that it has not."""
        self.total = total
        self._space = space
        self._searcher = _searcher(space, options)
        self._asked: set[int] = set()
        self._told: set[int] = set()

    def propose(self, history: Sequence[Tried]) -> Point | None:
        for i, tried in enumerate(history):
            if tried.score is not None and i not in self._told:
                self._told.add(i)
                self._tell(i, tried)
        suggestion = self._searcher.suggest(str(len(history)))
        if suggestion is None or isinstance(suggestion, str):
            return None
        self._asked.add(len(history))
        return {d.key: _value(d, suggestion) for d in self._space.dimensions}

    def _tell(self, i: int, tried: Tried) -> None:
        score = tried.score if tried.score is not None and abs(tried.score) != float("inf") else None
        if i in self._asked:
            result = None if score is None else {"score": score}
            self._searcher.on_trial_complete(str(i), result, error=score is None)
        elif score is not None:
            searched = {d.key: tried.point[d.key] for d in self._space.dimensions if not d.fixed}
            try:
                self._searcher.add_evaluated_point(searched, score)
            except NotImplementedError:  # it begins anew, with the trials that are left
                return


def _searcher(space: Space, options: RaySearch) -> Any:
    cls: Any = SEARCH_ALG_IMPORT[options.name]()  # type: ignore[no-untyped-call]
    known = [name for name in inspect.signature(cls.__init__).parameters if name not in _OURS]
    if unknown := [name for name in options.options if name not in known]:
        raise ConfigError(
            f"search.options: {options.name} has no argument {', '.join(unknown)}: it has {', '.join(known)}"
        )
    domains = {d.key: _domain(d) for d in space.dimensions if not d.fixed}
    try:
        return cls(space=domains, metric="score", mode="max", **options.options)
    except (AssertionError, ImportError) as error:
        raise EnvironmentProblem(f"search {options.name} needs its package: {error}") from error


def _domain(dimension: Dimension) -> Any:
    domain = dimension.domain
    if isinstance(domain, Choice):
        return tune.choice([option.value for option in domain.options])
    low, high = domain.ends
    if domain.whole and domain.step == 1:
        return tune.randint(int(low), int(high) + 1)
    if domain.step is not None:
        return tune.quniform(low, high, domain.step)
    return tune.loguniform(low, high) if domain.log else tune.uniform(low, high)


def _value(dimension: Dimension, suggestion: dict[str, Any]) -> Any:
    domain = dimension.domain
    if isinstance(domain, Interval):
        return domain.clip(suggestion[dimension.key])
    return domain.options[0].value if dimension.fixed else suggestion[dimension.key]
