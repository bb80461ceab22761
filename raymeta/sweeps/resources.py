"""What a trial takes of a cluster, and the arithmetic of whether it can ever fit. Knows no Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from raymeta.config import yaml_lines
from raymeta.config.load import dump
from raymeta.config.schema import RunConfig
from raymeta.errors import EnvironmentProblem
from raymeta.sweeps.load import Sweep
from raymeta.sweeps.schema import Resources
from raymeta.sweeps.space import describe

Bundle = dict[str, float]


class Share(NamedTuple):
    """What one trial takes: bundles that are reserved together, or none for it."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float

    @property
    def bundles(self) -> list[Bundle]:
        """The driver's bundle first: it is empty where workers compute, as the driver then only waits and adds."""
        worker = {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})
        return [{}, *[worker] * self.workers] if self.workers else [worker]

    def __str__(self) -> str:
        gpus = f" and {self.gpus_per_worker:g} GPUs" if self.gpus_per_worker else ""
        return f"{max(self.workers, 1)} x {self.cpus_per_worker:g} CPUs{gpus}"


def share_of(resources: Resources, config: RunConfig) -> Share:
    """What a trial with this configuration takes: the first rule that matches it counts."""
    share = Share(resources.workers, resources.cpus_per_worker, resources.gpus_per_worker)
    values = _dotted(yaml_lines.parse(dump(config), "configuration").value)
    for rule in resources.when:
        if all(_matches(values.get(_full(key, values)), wanted) for key, wanted in rule.if_.items()):
            given = {name: getattr(rule, name) for name in Share._fields}
            return share._replace(**{name: value for name, value in given.items() if value is not None})
    return share


def _full(key: str, values: Mapping[str, Any]) -> str:
    return key if key in values else f"{key}.name"


def _matches(value: Any, wanted: Any) -> bool:
    return value == wanted or (isinstance(wanted, list) and value in wanted)


def _dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def room(share: Share, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many workers of a trial fit on empty nodes."""
    return sum(_room(share, node) for node in nodes)


def _room(share: Share, node: Mapping[str, float]) -> int:
    limits = [math.floor(node.get("CPU", 0) / share.cpus_per_worker + 1e-9)]
    if share.gpus_per_worker:  # a fraction of a GPU lies on one GPU: 0.4 fits twice on each
        limits.append(int(node.get("GPU", 0)) * math.floor(1 / share.gpus_per_worker + 1e-9))
    return min(limits)


def require_fit(sweep: Sweep, nodes: Sequence[Mapping[str, float]], where: str) -> None:
    """Raise `EnvironmentProblem` with the arithmetic if some trial can never run on `nodes`."""
    for case in [None, *sweep.space.cases()]:
        point = sweep.space.first() if case is None else case.point
        share = share_of(sweep.file.resources, sweep.config(point))
        needed, fits = max(share.workers, 1), room(share, nodes)
        if fits < needed:
            have = " and ".join(f"{sum(n.get(r, 0) for n in nodes):g} {r}s" for r in ("CPU", "GPU"))
            plural = "s" * (len(nodes) != 1)
            raise EnvironmentProblem(
                f"a trial with {describe(point)} can never start: it asks for {share} at once, and {where} has {have} "
                f"on {len(nodes)} node{plural}: room for {fits}. Lower resources.workers, cpus_per_worker or "
                "gpus_per_worker, or use a larger cluster (--address)"
            )
