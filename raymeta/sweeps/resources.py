"""What a trial takes of a cluster, and the arithmetic of whether it can ever fit. Knows no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from raymeta.config import yaml_lines
from raymeta.config.load import dump
from raymeta.config.schema import RunConfig
from raymeta.engine.executors.placement import Need, Node, arithmetic, room
from raymeta.errors import EnvironmentProblem
from raymeta.sweeps.file.schema import Resources
from raymeta.sweeps.file.space import describe
from raymeta.sweeps.file.sweep import Sweep
from raymeta.system.text import dotted

Bundle = dict[str, float]

_SOME = 0.001
"""Ray marks a node's kind of GPU by one unit of a resource; a bundle asks for a little of it."""


class Share(NamedTuple):
    """What one trial takes: bundles that are reserved together."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    accelerator_type: str | None

    @property
    def need(self) -> Need:
        """What one worker takes of a node."""
        return Need(self.cpus_per_worker, self.gpus_per_worker, self.accelerator_type)

    @property
    def bundles(self) -> list[Bundle]:
        """The driver's bundle first: it is empty where workers compute, as the driver then only waits and adds."""
        worker = {"CPU": self.cpus_per_worker}
        if self.gpus_per_worker:
            worker["GPU"] = self.gpus_per_worker
        if self.accelerator_type:
            worker[f"accelerator_type:{self.accelerator_type}"] = _SOME
        return [{}, *[worker] * self.workers] if self.workers else [worker]

    def __str__(self) -> str:
        plural = "s" * (self.workers != 1)
        return f"{self.workers} worker{plural} x {self.need}" if self.workers else f"in its own process, {self.need}"


def share_of(resources: Resources, config: RunConfig) -> Share:
    """What a trial with this configuration takes: the first rule that matches it counts."""
    share = Share(**{name: getattr(resources, name) for name in Share._fields})
    values = dotted(yaml_lines.parse(dump(config), "configuration").value)
    for rule in resources.when:
        if all(_matches(values.get(_full(key, values)), wanted) for key, wanted in rule.if_.items()):
            given = {name: getattr(rule, name) for name in Share._fields}
            return share._replace(**{name: value for name, value in given.items() if value is not None})
    return share


def _full(key: str, values: Mapping[str, Any]) -> str:
    return key if key in values else f"{key}.name"


def _matches(value: Any, wanted: Any) -> bool:
    return value == wanted or (isinstance(wanted, list) and value in wanted)


def require_fit(sweep: Sweep, nodes: Sequence[Node]) -> None:
    """Raise `EnvironmentProblem` with the arithmetic if some trial can never run on `nodes`, even alone."""
    if sweep.file.resources.autoscaling:
        return
    for point in [sweep.space.first(), *(case.point for case in sweep.space.cases())]:
        share = share_of(sweep.file.resources, sweep.config(point))
        needed = max(share.workers, 1)
        if room(share.need, nodes) < needed:
            raise EnvironmentProblem(
                f"a trial with {describe(point)} can never start: {arithmetic(needed, share.need, nodes)}. Lower "
                "resources.workers, cpus_per_worker or gpus_per_worker, or use a larger cluster (--address); where the "
                "cluster grows by itself, set resources.autoscaling"
            )
