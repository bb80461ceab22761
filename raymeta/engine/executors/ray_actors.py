"""The Ray executor: long-lived actors, one device each, that pull shards. The only engine module that knows Ray.

The driver owns the pool and every call carries all it needs, so a lost worker is replaced and its shards computed
elsewhere without any change to the result. Differences from Ray's own actor pool: that one neither replaces actors
nor bounds calls in flight.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from raymeta.engine.worker import Blueprint, FloatArray, Job, Result, Worker
from raymeta.errors import EnvironmentProblem, RaymetaError, WorkerFailed
from raymeta.keys import Shard
from raymeta.runs.tracker import WorkerRow

IN_FLIGHT = 2
"""Calls given to a worker at once, so that the next shard is there when one ends."""
ATTEMPTS = 3
"""Times a shard may raise before its error ends the run: a bug repeats."""
LOSSES_WITHOUT_PROGRESS = 5
"""Workers that may die in a row, per worker asked, before the run gives up."""
START_TIMEOUT_S = 120.0
"""How long to wait for the first worker."""

Notify = Callable[[str, str], None]
"""Called with an event's kind and message."""


@dataclass
class _Seat:
    """A place in the pool: the actor that holds it now, and what its holders did."""

    name: str
    actor: Any
    pid: int = 0
    node: str = ""
    tasks: int = 0
    seconds: float = 0.0
    restarts: int = 0
    in_flight: int = 0


@dataclass
class _Call:
    """One shard given to one actor."""

    seat: _Seat
    actor: Any
    position: int


@dataclass
class RayExecutor:
    """A pool of `num_workers` actors. Starts a local cluster unless Ray runs already or `address` names one."""

    blueprint: Blueprint
    num_workers: int
    address: str | None = None
    notify: Notify = lambda kind, message: None
    _seats: list[_Seat] = field(default_factory=list, init=False)
    _owns_ray: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        try:
            import ray
        except ImportError as error:
            raise EnvironmentProblem(
                f"--workers {self.num_workers} needs Ray: pip install 'raymeta[ray]', or use --workers 0"
            ) from error
        self._ray = ray
        if not ray.is_initialized():
            self._owns_ray = self.address is None
            _connect(ray, self.address, self.num_workers * self.blueprint.threads)
        self._losses = 0
        try:
            self._blueprint_ref = ray.put(self.blueprint)
            self._seats = [self._take_seat(f"worker-{i}") for i in range(self.num_workers)]
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def map(self, job: Job, payload: FloatArray, shards: Sequence[Shard]) -> Iterator[tuple[int, Result]]:
        """See `Executor.map`. Raises `WorkerFailed` where a shard raises repeatedly or workers keep dying."""
        ray = self._ray
        payload_ref = ray.put(payload)
        todo, failures = deque(range(len(shards))), Counter[int]()
        calls: dict[Any, _Call] = {}
        for seat in self._seats:
            seat.in_flight = 0
        try:
            while todo or calls:
                while todo and (idle := self._idle_seat()) is not None:
                    position = todo.popleft()
                    ref = idle.actor.run.remote(job, payload_ref, shards[position])
                    calls[ref] = _Call(idle, idle.actor, position)
                    idle.in_flight += 1
                ready, _ = ray.wait(list(calls), num_returns=1)
                for ref in ready:
                    call = calls.pop(ref)
                    if call.seat.actor is call.actor:
                        call.seat.in_flight -= 1
                    try:
                        result: Result = ray.get(ref)
                    except ray.exceptions.RayTaskError as error:
                        failures[call.position] += 1
                        _raise_if_repeated(error, shards[call.position], failures[call.position])
                        todo.append(call.position)
                    except ray.exceptions.RayError as error:  # died, unavailable, out of memory, or its result was lost
                        todo.appendleft(call.position)
                        self._replace(call, error)
                    else:
                        self._losses = 0
                        call.seat.pid = result.pid
                        call.seat.tasks += shards[call.position].num_tasks
                        call.seat.seconds += result.seconds
                        yield call.position, result
        finally:
            for ref in calls:
                ray.cancel(ref)

    def workers(self) -> list[WorkerRow]:
        return [
            WorkerRow(s.name, s.node, s.pid, s.tasks, s.tasks / s.seconds if s.seconds else 0.0, s.restarts)
            for s in self._seats
        ]

    def close(self) -> None:
        for seat in self._seats:
            self._ray.kill(seat.actor)
        self._seats = []
        if self._owns_ray:
            self._ray.shutdown()

    def _idle_seat(self) -> _Seat | None:
        seat = min(self._seats, key=lambda s: s.in_flight)
        return seat if seat.in_flight < IN_FLIGHT else None

    def _take_seat(self, name: str) -> _Seat:
        return _Seat(name, self._new_actor(), node=socket.gethostname())

    def _new_actor(self) -> Any:
        # Restarts are ours: Ray would queue the lost calls behind a restart while another worker could take them.
        gpus = 1 if self.blueprint.device != "cpu" and self._resources().get("GPU") else 0
        options = {"num_cpus": self.blueprint.threads, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        return self._ray.remote(Worker).options(**options).remote(self._blueprint_ref)

    def _resources(self) -> dict[str, float]:
        ray: Any = self._ray
        return dict(ray.cluster_resources())

    def _wait_until_ready(self) -> None:
        """Wait for every worker, so that each one computes shards from the first step."""
        refs = {seat.actor.ready.remote(): seat for seat in self._seats}
        deadline = time.monotonic() + START_TIMEOUT_S
        while refs:
            ready, _ = self._ray.wait(list(refs), num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                have, want = self._resources().get("CPU", 0), self.num_workers * self.blueprint.threads
                raise EnvironmentProblem(
                    f"{len(refs)} of {self.num_workers} workers did not start within {START_TIMEOUT_S:.0f} s: they ask "
                    f"for {want} CPUs and the cluster has {have:.0f} in all. Lower --workers, or free resources"
                )
            seat = refs.pop(ready[0])
            try:
                seat.pid = self._ray.get(ready[0])
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            except self._ray.exceptions.RayError as error:
                raise WorkerFailed(f"{seat.name} could not start: {_first_lines(error)}") from error

    def _replace(self, call: _Call, error: Exception) -> None:
        """Put a new actor where one was lost; the other calls of the lost one fail and are requeued in their turn."""
        if call.seat.actor is not call.actor:
            return
        self._losses += 1
        if self._losses > LOSSES_WITHOUT_PROGRESS * self.num_workers:
            raise WorkerFailed(
                f"{self._losses} workers died in a row without finishing a shard; the last: {_first_lines(error)}. "
                "Out of memory? Try a smaller --shard_size, or fewer --workers"
            ) from error
        self._ray.kill(call.actor)
        call.seat.actor, call.seat.in_flight = self._new_actor(), 0
        call.seat.restarts += 1
        self.notify("worker_lost", f"{call.seat.name} (pid {call.seat.pid}) was lost; its shards are computed again")


def _connect(ray: Any, address: str | None, num_cpus: int) -> None:
    """Start a local cluster, where CPU workers may exceed the cores, or join the one at `address`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        cpus = max(num_cpus, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **common)
        return
    _require_listening(address)
    try:
        ray.init(address=address, **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EnvironmentProblem(
            f"no Ray cluster at --address {address}: {_first_lines(error)}. Start one with `ray start --head`, "
            "or leave --address out for a local one"
        ) from error


def _require_listening(address: str) -> None:
    """Fail within seconds where nothing listens; Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise EnvironmentProblem(
            f"nothing answers at --address {address} ({error}). Check that the cluster runs and the port is open, "
            "or leave --address out for a local cluster"
        ) from error


def _raise_if_repeated(error: Any, shard: Shard, failures: int) -> None:
    cause = _cause(error)
    if isinstance(cause, RaymetaError):
        raise cause from None
    if failures >= ATTEMPTS:
        keys = f"seed {shard.seed}, {shard.split}, step {shard.step}, tasks {shard.start} to {shard.stop - 1}"
        raise WorkerFailed(
            f"a shard ({keys}) raised {failures} times on the workers: {type(cause).__name__}: {cause}"
        ) from cause


def _cause(error: Any) -> Exception:
    return error.cause if isinstance(error.cause, Exception) else error


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
