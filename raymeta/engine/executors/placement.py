"""What workers ask of a cluster, and the arithmetic of whether they fit. Knows no Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from raymeta.errors import ConfigError

Aggregate = Literal["flat", "node"]
Placement = Literal["pack", "spread"]


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """How many workers there are, where, and when one counts as lost."""

    workers: int | Literal["auto"] = 1
    min_workers: int | None = None  # to start: `workers`; to go on: 1
    max_workers: int | None = None  # `workers`
    address: str | None = None
    autoscaling: bool = False
    cpus_per_worker: float = 1
    gpus_per_worker: float | None = None  # see `gpus_of_a_worker`
    accelerator_type: str | None = None
    node_labels: Mapping[str, str] = field(default_factory=dict)
    placement: Placement = "pack"
    aggregate: Aggregate = "flat"
    shard_timeout_s: float | None = None
    worker_wait_s: float = 600.0


class Need(NamedTuple):
    """What one worker takes of a node."""

    cpus: float
    gpus: float
    accelerator_type: str | None = None
    labels: Mapping[str, str] = {}

    def __str__(self) -> str:
        parts = [f"{self.gpus:g} GPU{'s' * (self.gpus > 1)}"] if self.gpus else []
        if self.cpus or not parts:
            parts.append(f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}")
        if self.accelerator_type:
            parts.append(f"accelerator {self.accelerator_type}")
        return " and ".join(parts + [f"label {name}={value}" for name, value in self.labels.items()])


class Node(NamedTuple):
    """A node of the cluster: what it has, in all or free just now."""

    id: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]

    def room(self, need: Need) -> int:
        """Workers that fit on it. A fraction of a GPU lies on one GPU: 0.4 fits twice on each."""
        if any(self.labels.get(name) != value for name, value in need.labels.items()):
            return 0
        if need.accelerator_type and not self.resources.get(f"accelerator_type:{need.accelerator_type}"):
            return 0
        limits = []
        if need.cpus:
            limits.append(math.floor(self.resources.get("CPU", 0) / need.cpus + 1e-9))
        if need.gpus:
            gpus = self.resources.get("GPU", 0)
            limits.append(int(gpus) * math.floor(1 / need.gpus + 1e-9) if need.gpus < 1 else int(gpus // need.gpus))
        return min(limits, default=10**6)


def require_known_address(address: str) -> str:
    """The address as it is, `auto` or HOST:PORT. Raises `ConfigError` for Ray's client.

    Through it every call would go over a proxy, and some of what the driver needs of Ray is not there (2.60).
    """
    if address.startswith("ray://"):
        raise ConfigError(
            f"address {address} is Ray's client, which a run cannot use: submit the command to the cluster with "
            "`ray job submit`, or start it on one of its hosts with auto or HOST:PORT"
        )
    return address


def gpus_of_a_worker(options: PoolOptions, device: str, nodes: Sequence[Node]) -> float:
    """GPUs that a worker asks for: as told, else 1 where the cluster has any, or where only a GPU will do.

    Raises `ConfigError` where nothing tells: while no GPU is up, a cluster that grows may be meant to have some.
    """
    if options.gpus_per_worker is not None:
        return options.gpus_per_worker
    if device == "cpu":
        return 0
    if device == "cuda" or options.accelerator_type or any(node.resources.get("GPU") for node in nodes):
        return 1
    if options.autoscaling:
        raise ConfigError(
            "with autoscaling, and no GPU up yet, nothing tells whether workers are to have one: add "
            "--gpus_per_worker 1 to wait for GPUs, or --gpus_per_worker 0 to compute on CPUs"
        )
    return 0


def room(need: Need, nodes: Sequence[Node]) -> int:
    """Workers that fit on `nodes`."""
    return sum(node.room(need) for node in nodes)


def arithmetic(num_workers: int, need: Need, nodes: Sequence[Node]) -> str:
    """«8 workers x 1 GPU asked, 4 GPUs in the cluster: room for 4»."""
    matching = [n for n in nodes if Node(n.id, {}, n.labels).room(need._replace(accelerator_type=None, cpus=0, gpus=0))]
    names = ["GPU"] * bool(need.gpus) + ["CPU"] * bool(need.cpus)
    have = " and ".join(f"{sum(n.resources.get(r, 0) for n in nodes):g} {r}s" for r in names) or "nothing to count"
    where = f"on {len(nodes)} node{'s' * (len(nodes) != 1)}"
    if need.labels:
        where += f", {len(matching)} of them with these labels"
    if need.accelerator_type:
        types = sorted({r.split(":", 1)[1] for n in nodes for r in n.resources if r.startswith("accelerator_type:")})
        where += f", accelerators there: {', '.join(types) or 'none'}"
    plural = "s" * (num_workers != 1)
    return f"{num_workers} worker{plural} x {need} asked, {have} in the cluster {where}: room for {room(need, nodes)}"
