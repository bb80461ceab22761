"""The workers: actors in seats. A seat stays, with its name and its account; the actor in it may change."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from raymeta.engine.executors.base import Tell
from raymeta.engine.executors.placement import Need, PoolOptions, arithmetic, gpus_of_a_worker, room
from raymeta.engine.executors.ray_actors.cluster import Cluster, first_lines
from raymeta.engine.executors.ray_actors.folding import nothing
from raymeta.engine.job import Job, Payload, Result, Rows
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.engine.worker.worker import Worker, resident_bytes
from raymeta.errors import DataError, EnvironmentProblem, RunFailed, WorkerFailed
from raymeta.keys import Shard
from raymeta.system.their_code import described, with_place
from raymeta.trackers.base import WorkerRow
from raymeta.tree import FloatArray

LOSSES_WITHOUT_PROGRESS = 5
"""Workers that may die in a row, per worker asked, before the run gives up."""
PATIENCE_S = 15.0
"""How long to wait for workers before saying what they wait for."""
GRACE_S = 10.0
"""With enough workers to start, how long to wait for the others."""
DRAIN_CHECK_S = 2.0


class ActorWorker:
    """A worker as an actor: the result's vector travels apart from its description, and parameters are kept."""

    def __init__(self, blueprint: Blueprint, data: object) -> None:
        self._worker = Worker(blueprint, data)
        self._payload: tuple[int, Payload] | None = None

    def ready(self) -> tuple[int, str]:
        """Load the data; answers with the process id and the node."""
        import ray

        pid = self._worker.ready()
        return pid, ray.get_runtime_context().get_node_id()

    def run(
        self,
        job: Job,
        version: int,
        payload: Payload,
        shard: Shard,
        upcoming: Shard | None,
        rows: Rows | None = None,
    ) -> tuple[Result, FloatArray]:
        """See `Worker.run`; `upcoming` may come next, so its episodes are built while this worker waits."""
        if self._payload is None or self._payload[0] != version:
            self._payload = version, payload
        try:
            result = self._worker.run(job, self._payload[1], shard, rows)
        except SystemExit as error:  # which Ray would take for the end of a worker
            raise RunFailed(described(error)) from error
        except Exception as error:  # whose traceback stays here
            raise with_place(error) from error.__cause__
        if upcoming is not None:
            self._worker.prepare(upcoming)
        return result._replace(vector=nothing(), rss_bytes=resident_bytes()), result.vector


@dataclass(eq=False)
class Seat:
    """A place in the pool: the actor that holds it now, and what its holders did."""

    name: str
    actor: Any = None
    node: str = ""
    host: str = ""
    pid: int = 0
    live: bool = False
    in_flight: int = 0
    tasks: int = 0
    seconds: float = 0.0
    restarts: int = 0
    rss_bytes: int = 0
    answered: set[tuple[str, int]] = field(default_factory=set)
    """kinds of calls that the actor has answered"""

    def row(self) -> WorkerRow:
        rate = self.tasks / self.seconds if self.seconds else 0.0
        return WorkerRow(
            self.name, self.host, self.pid, self.tasks, rate, self.restarts, self.in_flight, self.rss_bytes
        )


@dataclass
class Pool:
    """All seats. Raises `EnvironmentProblem` within seconds if the cluster can never hold the workers it needs."""

    cluster: Cluster
    blueprint: Blueprint
    options: PoolOptions
    tell: Tell
    seats: list[Seat] = field(default_factory=list, init=False)
    joining: dict[Any, tuple[Seat, Any]] = field(default_factory=dict, init=False)  # reference -> seat and actor
    _losses: int = field(default=0, init=False)
    _failed_starts: int = field(default=0, init=False)  # in a row
    _checked_drain: float = field(default=-math.inf, init=False)
    _ready: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        options = self.options
        gpus = gpus_of_a_worker(options, self.blueprint.device, self.cluster.nodes())
        self.need = Need(options.cpus_per_worker, gpus, options.accelerator_type, options.node_labels)
        fits = room(self.need, self.cluster.nodes())
        self.wanted = max(1, fits) if options.workers == "auto" else options.workers
        self.to_start = options.min_workers or self.wanted
        self.to_go_on = options.min_workers or 1
        if fits < self.to_start and not options.autoscaling and not self.cluster.in_placement_group:
            raise EnvironmentProblem(
                f"the workers do not fit: {arithmetic(self.to_start, self.need, self.cluster.nodes())}. Lower "
                "--workers (or --min_workers) or what each one asks; where the cluster grows by itself, add "
                "--autoscaling"
            )
        self._actor_options = self.cluster.actor_options(self.need, options)
        ray = self.cluster.ray
        ray.method(num_returns=2)(ActorWorker.run)  # a mark on the function, which costs less than one for each call
        self._parts = ray.put(self.blueprint), ray.put(self.blueprint.tasks.to_send())
        for i in range(max(self.wanted, options.max_workers or 0)):
            self.seats.append(Seat(f"worker-{i}"))
            self._fill(self.seats[-1])

    def wait_until_ready(self) -> None:
        """Wait for the workers a start needs, and a while for the others; says what is waited for."""
        began = time.monotonic()
        told = False
        while len(self.live()) < self.wanted:
            self.collect(timeout=0.2)
            waited = time.monotonic() - began
            enough = len(self.live()) >= self.to_start
            if enough and waited > GRACE_S and self._busy():
                break
            if waited > self.options.worker_wait_s:
                raise EnvironmentProblem(f"{self._missing()} after {waited:.0f} s. Lower --workers, or free resources")
            if waited > PATIENCE_S and not told and self._busy():
                told = True
                self.tell("workers_waiting", f"{self._missing()}; waiting up to {self.options.worker_wait_s:.0f} s")
        self._ready = True

    def collect(self, timeout: float) -> None:
        """Seat the actors that have come up within `timeout` seconds."""
        self.cluster.watched.require_alive()
        if self.joining:
            ready, _ = self.cluster.ray.wait(list(self.joining), num_returns=1, timeout=timeout)
            for reference in ready:
                self.joined(reference)
        else:
            time.sleep(timeout)

    def live(self) -> list[Seat]:
        """Seats that may be given shards."""
        return [seat for seat in self.seats if seat.live]

    def joined(self, reference: Any) -> None:
        """An actor answered, or will never.

        What is wrong with a worker ends the run before its first step. Later, one on a machine that lacks something is
        tried again, as one that died is, and the others go on.
        """
        seat, actor = self.joining.pop(reference)
        if seat.actor is not actor:
            return
        ray = self.cluster.ray
        try:
            seat.pid, seat.node = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = cause_of(error)
            if not (self._ready and isinstance(cause, DataError | EnvironmentProblem)):
                raise cause from None
            self._not_started(seat, str(cause), error)
            return
        except ray.exceptions.RayError as error:
            self._not_started(seat, first_lines(error), error)
            return
        seat.live, self._failed_starts = True, 0
        seat.host = self.cluster.addresses().get(seat.node, "")
        if self._ready:
            self.tell("worker_joined", f"{seat.name} joined on {seat.host}", worker=seat.name, node=seat.host)

    def _not_started(self, seat: Seat, reason: str, error: BaseException) -> None:
        self._failed_starts += 1  # told once: what keeps one from starting keeps all
        self.lose(seat, f"could not start: {reason}", error, quiet=self._failed_starts > 1)

    def lose(
        self,
        seat: Seat,
        reason: str,
        error: BaseException | None = None,
        kind: str = "worker_lost",
        *,
        quiet: bool = False,
    ) -> None:
        """Put a new actor into a seat, and say so unless `quiet`.

        Raises `WorkerFailed` where workers keep dying without finishing a shard.
        """
        self._losses += 1
        if self._losses > LOSSES_WITHOUT_PROGRESS * len(self.seats):
            remedy = "Out of memory? Try a smaller --chunk_size, or fewer --workers"
            if self._failed_starts:
                remedy = "Ray's own logs on that host say why (by default in /tmp/ray/session_latest/logs)"
            raise WorkerFailed(
                f"{self._losses} workers were lost in a row without finishing a shard; the last {reason}. {remedy}"
            ) from error
        self.cluster.ray.kill(seat.actor)
        seat.restarts += 1
        fields = {"worker": seat.name, "node": seat.host, "pid": seat.pid}
        self._fill(seat)
        if quiet:
            return
        left = f"{len(self.live())} of {self.wanted} workers are left"
        where = f"{fields['worker']} on {seat.host}" if seat.host else fields["worker"]
        what = "its shards are computed again" if seat.host else "it is tried again, without a word each time"
        self.tell(kind, f"{where} {reason}; {what}, {left}", **fields)

    def progress(self) -> None:
        """A shard was finished, so workers do not just die."""
        self._losses = 0

    def on_leaving_nodes(self, now: float) -> list[Seat]:
        """Seats on nodes that were told to go, looked up every few seconds."""
        if now - self._checked_drain < DRAIN_CHECK_S:
            return []
        self._checked_drain = now
        nodes = self.cluster.leaving()
        return [seat for seat in self.live() if seat.node in nodes]

    def rows(self) -> Iterator[WorkerRow]:
        return (seat.row() for seat in self.seats if seat.live or seat.tasks)

    def close(self) -> None:
        if not self.cluster.watched.gone():
            for seat in self.seats:
                self.cluster.ray.kill(seat.actor)
        self.seats, self.joining = [], {}

    def _fill(self, seat: Seat) -> None:
        """Ask for an actor. While it is pending, it is the demand that an autoscaler sees."""
        seat.actor = self.cluster.ray.remote(ActorWorker).options(**self._actor_options).remote(*self._parts)
        seat.live, seat.in_flight, seat.answered = False, 0, set()
        self.joining[seat.actor.ready.remote()] = seat, seat.actor

    def _busy(self) -> bool:
        """Whether the workers that are missing find no room just now."""
        free = self.cluster.free()
        short_of_cpus = free.get("CPU", 0) + 1e-9 < self.need.cpus
        return short_of_cpus or free.get("GPU", 0) + 1e-9 < self.need.gpus

    def _missing(self) -> str:
        free = self.cluster.free()
        asked = arithmetic(self.wanted, self.need, self.cluster.nodes())
        return (
            f"{self.wanted - len(self.live())} of {self.wanted} workers are not there yet: {asked}, free now "
            f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs"
        )


def cause_of(error: Any) -> Exception:
    """The exception that a remote call raised, as it was there."""
    return error.cause if isinstance(error.cause, Exception) else error
