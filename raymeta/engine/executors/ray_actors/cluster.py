"""The Ray cluster: started on this machine or joined, and what it has."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raymeta.engine.executors.placement import Need, Node, PoolOptions
from raymeta.engine.executors.ray_actors.watched import Watched
from raymeta.errors import EnvironmentProblem
from raymeta.system.signals import handlers_kept

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_IGNORE_UNHANDLED_ERRORS": "1"}
"""What Ray reads at its start, where nobody said otherwise: whatever an actor raises is told by the executor."""


class Cluster:
    """A connection to Ray. Starts Ray on this machine unless it runs in this process or `address` names a cluster."""

    def __init__(self, options: PoolOptions) -> None:
        try:
            import ray
        except ImportError as error:
            raise EnvironmentProblem(
                f"--workers {options.workers} needs Ray: pip install 'raymeta[ray]', or use --workers 0"
            ) from error
        self.ray: Any = ray
        self.owned = not ray.is_initialized() and options.address is None
        with handlers_kept():  # Ray puts its own in their place, which end the process
            if self.owned:
                _start(ray, options)
            elif not ray.is_initialized():
                _join(ray, str(options.address))
        self.watched = Watched(ray)

    @property
    def in_placement_group(self) -> bool:
        """Whether workers go into bundles that were reserved for them, as in a trial of Ray Tune."""
        return self.ray.util.get_current_placement_group() is not None

    def nodes(self) -> list[Node]:
        """Nodes that are alive, with all they have."""
        return [Node(n["NodeID"], n["Resources"], n.get("Labels") or {}) for n in self.ray.nodes() if n["Alive"]]

    def free(self) -> Mapping[str, float]:
        """What nobody uses just now, by resource."""
        resources: Mapping[str, float] = self.ray.available_resources()
        return resources

    def addresses(self) -> dict[str, str]:
        """IP address of every node by its id."""
        return {n["NodeID"]: n["NodeManagerAddress"] for n in self.ray.nodes()}

    def leaving(self) -> set[str]:
        """Nodes that were told to drain: a spot node that will be taken away, or one the autoscaler removes."""
        from ray._private.state import state  # no public way in 2.60; Ray Train asks the same

        asked: Iterable[Any] = getattr(state, "get_draining_nodes", dict)()
        return {node if isinstance(node, str) else node.hex() for node in asked}

    def describe(self) -> dict[str, object]:
        """For the run's files."""
        context = self.ray.get_runtime_context()
        url = self.ray._private.worker.get_dashboard_url()
        return {
            "executor": "ray",
            "ray_address": context.gcs_address,
            "ray_dashboard": f"http://{url}" if url else None,
            "nodes": len(self.nodes()),
            "resources": {k: v for k, v in self.ray.cluster_resources().items() if k in ("CPU", "GPU")},
        }

    def actor_options(self, need: Need, options: PoolOptions) -> dict[str, Any]:
        """Ray's options for a worker. Restarts are ours: Ray would queue lost calls behind a restart."""
        chosen: dict[str, Any] = {
            "num_cpus": need.cpus,
            "num_gpus": need.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if need.accelerator_type:
            chosen["accelerator_type"] = need.accelerator_type
        if need.labels:
            chosen["label_selector"] = dict(need.labels)
        if options.placement == "spread" and not self.in_placement_group:
            chosen["scheduling_strategy"] = "SPREAD"
        return chosen

    def close(self) -> None:
        self.watched.close()
        if self.owned:
            self.ray.shutdown()


QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


def _start(ray: Any, options: PoolOptions) -> None:
    """A cluster on this machine, where CPU workers may exceed the cores."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cores = os.cpu_count() or 1
    workers = cores if options.workers == "auto" else options.workers
    cpus = max(cores, (options.max_workers or workers) * options.cpus_per_worker)
    ray.init(address="local", num_cpus=int(cpus + 0.999), include_dashboard=False, **QUIET)
    close_token()


def close_token() -> None:
    """Keep other users of this machine from Ray's token, which runs programs as us; Ray 2.60 lets everybody read it."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def _join(ray: Any, address: str) -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _require_listening(address)
    try:
        ray.init(address=address, **QUIET)
    except (ConnectionError, RuntimeError, ValueError) as error:
        refused = any(word in str(error) for word in ("AuthToken", "authentication"))
        token = (
            "It asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token as on its hosts"
            if refused
            else "Start one with `ray start --head`"
        )
        raise EnvironmentProblem(
            f"no Ray cluster at --address {address}: {first_lines(error)}. {token}, or leave --address out for a local "
            "one"
        ) from error


def _require_listening(address: str) -> None:
    """Fail within seconds where nothing listens; Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise EnvironmentProblem(
            f"nothing answers at --address {address} ({error}). Check that the cluster runs and the port is open, "
            "or leave --address out for a local cluster"
        ) from error


def first_lines(error: BaseException) -> str:
    """An error's text on one line, cut."""
    return " ".join(str(error).split())[:300]
