"""Shards to workers and results back, whatever happens to the workers meanwhile."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

from raymeta.engine.executors.base import Tell, silent, tell_compiled
from raymeta.engine.executors.placement import PoolOptions
from raymeta.engine.executors.ray_actors.cluster import Cluster
from raymeta.engine.executors.ray_actors.deadlines import Deadlines
from raymeta.engine.executors.ray_actors.folding import LEAST_BYTES, block_level, whole_blocks
from raymeta.engine.executors.ray_actors.overhead import Overhead
from raymeta.engine.executors.ray_actors.pool import Pool, Seat, cause_of
from raymeta.engine.executors.ray_actors.request import Call, Request, Todo
from raymeta.engine.executors.ray_actors.sums import NodeSums
from raymeta.engine.job import Job, Payload, Result, Rows
from raymeta.engine.worker.blueprint import Blueprint
from raymeta.errors import OutOfMemory, RaymetaError, WorkerFailed
from raymeta.keys import Block, Shard
from raymeta.system.their_code import described
from raymeta.trackers.base import WorkerRow

IN_FLIGHT = 2
"""Calls given to a worker at once, so that the next shard is there when one ends."""
ATTEMPTS = 3
"""Times a shard may raise before its error ends the run: a bug repeats."""
TICK_S = 0.25
"""How long to wait for a result before looking at the clock."""


class RayExecutor:
    """A pool of actors. See `Executor` for its laws; raises `WorkerFailed` where the work cannot go on.

    Results are taken first come; a shard that is late is computed by a second worker too, and the first result wins.
    What each worker has been given is remembered across steps: the loser of such a race is still busy.
    """

    concurrent = True

    def __init__(self, blueprint: Blueprint, options: PoolOptions, tell: Tell = silent) -> None:
        self._options = options
        self._tell = tell
        self._cluster = Cluster(options)
        self._ray = self._cluster.ray
        self._sums = NodeSums(self._ray, tell)
        self._numbers = itertools.count()
        self._requests: list[Request] = []
        self._calls: dict[Any, Call] = {}  # by the reference that is waited for
        self._deadlines = Deadlines(options.shard_timeout_s)
        self._prepared: dict[Shard, Seat] = {}
        self._checked_late = 0.0
        self._short_since: float | None = None
        self._overhead = Overhead()
        self.waited_s = 0.0
        try:
            self.pool = Pool(self._cluster, blueprint, options, tell)
            self.pool.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def map(
        self,
        job: Job,
        payload: Payload,
        shards: Sequence[Shard],
        *,
        rows: Sequence[Rows] | None = None,
        upcoming: Sequence[Shard] = (),
        urgent: bool = True,
    ) -> Iterator[tuple[Block, Result]]:
        self._cluster.watched.require_alive()
        level = self._block_level(job, payload, len(shards))
        prepared = {p: self._owner(seat, level) for p, s in enumerate(shards) if (seat := self._prepared.get(s))}
        self._prepared = {}
        owners = prepared if level is None else whole_blocks(prepared, level, len(self._live_nodes()))
        todo = Todo(len(shards), owners, level or 0)
        reference = self._ray.put(payload)
        request = Request(next(self._numbers), job, reference, payload.nbytes, shards, upcoming, todo, level, rows)
        self._requests.insert(0 if urgent else len(self._requests), request)
        self._give_out()
        return self._results(request)

    def unfinished(self) -> int:
        return sum(request.remaining for request in self._requests)

    def workers(self) -> list[WorkerRow]:
        return list(self.pool.rows())

    def describe(self) -> dict[str, object]:
        return {**self._cluster.describe(), "workers": len(self.pool.live()), "per_worker": str(self.pool.need)}

    def close(self) -> None:
        self._sums.close()
        if hasattr(self, "pool"):
            self.pool.close()
        self._cluster.close()

    def _results(self, request: Request) -> Iterator[tuple[Block, Result]]:
        try:
            while request.results or request.remaining:
                while request.results:
                    yield request.results.popleft()
                if request.failure is not None:
                    raise request.failure
                if request.remaining:
                    self._advance()
            if message := self._overhead.measure(request, len(self.pool.live())):
                self._tell("warning", message)
        finally:
            self._forget(request)

    def _forget(self, request: Request) -> None:
        """Nobody waits for the rest; calls that have not started are taken back, the others stay on the account."""
        request.forgotten = True
        if request in self._requests:
            self._requests.remove(request)
        for calls in request.given.values():
            for call in calls:
                self._make_obsolete(call)

    # Giving out

    def _block_level(self, job: Job, payload: Payload, num_shards: int) -> int | None:
        if self._options.aggregate == "flat" or job.kind != "gradient" or payload.learned.nbytes < LEAST_BYTES:
            return None
        return block_level(num_shards, len(self._live_nodes()))

    def _live_nodes(self) -> set[str]:
        return {seat.node for seat in self.pool.live()}

    def _owner(self, seat: Seat, level: int | None) -> str:
        return seat.name if level is None else seat.node

    def _give_out(self) -> None:
        """Fill the workers with what is to do."""
        if self._short_of_workers():
            return
        for request in self._requests:
            while request.todo and (seat := self._idle_seat()) is not None:
                self._give(request, request.todo.take(self._owner(seat, request.level)), seat)

    def _idle_seat(self) -> Seat | None:
        seat = min(self.pool.live(), key=lambda s: s.in_flight, default=None)
        return seat if seat is not None and seat.in_flight < IN_FLIGHT else None

    def _give(self, request: Request, position: int, seat: Seat) -> None:
        upcoming = request.upcoming_at(position)
        rows = None if request.rows is None else request.rows[position]
        info, vector = seat.actor.run.remote(
            request.job, request.number, request.payload, request.shards[position], upcoming, rows
        )
        seat.in_flight += 1
        call = Call(request, position, seat, seat.actor, info, vector, seat.in_flight, time.monotonic())
        request.given.setdefault(position, []).append(call)
        # A result that may be summed on its node is not fetched: its description, which is small, says it is there.
        self._calls[vector if request.level is None else info] = call
        if upcoming is not None:
            self._prepared[upcoming] = seat

    def _short_of_workers(self) -> bool:
        """Whether too few are left to go on; raises `WorkerFailed` after too long a wait."""
        live, now = len(self.pool.live()), time.monotonic()
        if live >= self.pool.to_go_on:
            if self._short_since is not None:
                self._tell("worker_joined", f"{live} workers are there again: the run goes on")
            self._short_since = None
            return False
        if self._short_since is None:
            self._short_since = now
            self._tell(
                "workers_waiting",
                f"{live} workers are left and the run needs {self.pool.to_go_on}: it waits up to "
                f"{self._options.worker_wait_s:.0f} s for others",
            )
        elif now - self._short_since > self._options.worker_wait_s:
            raise WorkerFailed(
                f"only {live} workers were there for {self._options.worker_wait_s:.0f} s, and the run needs "
                f"{self.pool.to_go_on} (--min_workers): continue with --resume when there are more"
            )
        return True

    # Taking in

    def _advance(self) -> None:
        """Wait a moment for results, take them in, and give out what became possible."""
        self._cluster.watched.require_alive()
        references = [*self._calls, *self._sums.references, *self.pool.joining]
        began = time.monotonic()
        ready: list[Any] = []
        if references:
            ready, rest = self._ray.wait(references, num_returns=1, timeout=TICK_S)
            if ready and len(rest) > len(ready):
                ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        else:
            time.sleep(TICK_S)
        now = time.monotonic()
        self.waited_s += now - began
        self._cluster.watched.require_alive()
        for reference in ready:
            self._take_in(reference)
        if now - self._checked_late > TICK_S:
            self._checked_late = now
            self._look_at_the_clock(now)
        self._give_out()

    def _take_in(self, reference: Any) -> None:
        if reference in self.pool.joining:
            self.pool.joined(reference)
        elif call := self._calls.pop(reference, None):
            self._take_result(call)
        else:  # a sum, or of a worker that was lost a moment ago
            self._sums.take(reference)

    def _take_result(self, call: Call) -> None:
        exceptions = self._ray.exceptions
        if call.actor is call.seat.actor:
            call.seat.in_flight -= 1
        request = call.request
        self._cluster.watched.require_alive()
        try:
            info: Result = self._ray.get(call.info)
            result = info if request.level is not None else info._replace(vector=self._ray.get(call.vector))
        except exceptions.TaskCancelledError:
            self._requeue(call)
        except exceptions.RayTaskError as error:
            self._raised(call, cause_of(error))
        except exceptions.ObjectLostError:
            self._tell("result_lost", f"a result of {call.seat.name} was lost: its shard is computed again")
            self._requeue(call)
        except exceptions.RayError as error:
            self._lose(call.seat, call.actor, f"was lost ({type(error).__name__})", error)
            self._requeue(call)
        else:
            self.pool.progress()
            tell_compiled(self._tell, result)
            self._accept(call, result)

    def _accept(self, call: Call, result: Result) -> None:
        request, seat, now = call.request, call.seat, time.monotonic()
        seat.pid, seat.rss_bytes = result.pid, result.rss_bytes
        seat.seconds += result.seconds
        seat.answered.add(call.kind)
        if call.obsolete:
            return
        seat.tasks += request.shards[call.position].num_tasks
        if not result.compile_s:
            self._deadlines.finished(request.job.name, call.age(now), call.depth)
        request.seconds += result.seconds
        for other in request.given.pop(call.position, []):
            if other is not call:
                self._make_obsolete(other)
        if request.level is None:
            request.deliver(Block(0, call.position), result)
            return
        self._sums.add(call, result)

    def _requeue(self, call: Call) -> None:
        """The call came to nothing: its shard is to be done again, unless another copy is on its way or came."""
        if call.obsolete:
            return
        request = call.request
        calls = request.given.get(call.position, [])
        if call in calls:
            calls.remove(call)
        if not calls:
            request.todo.put_back(call.position)
        call.obsolete = True

    def _raised(self, call: Call, cause: Exception) -> None:
        """A bug repeats: after a few attempts its error ends the run."""
        if call.obsolete:
            return
        if isinstance(cause, self._ray.exceptions.RayError):  # an argument could not be had there
            self._requeue(call)
            return
        if isinstance(cause, OutOfMemory):  # its own request is given up; others may be on their way beside it
            call.request.failure = cause
            self._forget(call.request)
            return
        if isinstance(cause, RaymetaError):
            raise cause from None
        request, shard = call.request, call.request.shards[call.position]
        request.failures[call.position] += 1
        failures = request.failures[call.position]
        text = f"seed {shard.seed}, {shard.split}, step {shard.step}, tasks {shard.start} to {shard.stop - 1}"
        message = described(cause)
        if failures >= ATTEMPTS:
            raise WorkerFailed(f"a shard ({text}) raised {failures} times on the workers: {message}") from cause
        self._tell("shard_retried", f"a shard ({text}) raised on {call.seat.name} and is tried again: {message}")
        self._requeue(call)

    def _make_obsolete(self, call: Call) -> None:
        call.obsolete = True
        self._ray.cancel(call.info)

    # The clock

    def _look_at_the_clock(self, now: float) -> None:
        for seat in self.pool.on_leaving_nodes(now):
            self._lose(seat, seat.actor, "is on a node that will be taken away", kind="worker_preempted")
        compiling = {call.seat.name for call in self._calls.values() if self._may_compile(call)}
        for call in list(self._calls.values()):
            self._look_at(call, now, compiling=call.seat.name in compiling)
        self._sums.give_up_late(now, self._deadlines.hung_after_s)

    def _may_compile(self, call: Call) -> bool:
        """Whether its worker has not answered a call of this kind, which may be a graph of its own."""
        return self.pool.blueprint.compiled and call.kind not in call.seat.answered

    def _look_at(self, call: Call, now: float, *, compiling: bool) -> None:
        request, age_s = call.request, call.age(now)
        copies = 0 if call.obsolete else len(request.given.get(call.position, []))
        about = {"copies": copies, "waiting": len(request.todo)}
        match self._deadlines.decide(request.job.name, age_s, call.depth, **about, compiling=compiling):
            case "give_up":
                self._lose(call.seat, call.actor, f"has not answered for {age_s:.0f} s", kind="worker_hung")
            case "copy":
                self._copy(call, age_s)

    def _copy(self, call: Call, age_s: float) -> None:
        """Give a late shard to a second worker, if one is idle."""
        seat = self._idle_seat()
        if seat is not None and seat is not call.seat:
            message = f"a shard at {call.seat.name} is late ({age_s:.1f} s): {seat.name} computes it too"
            self._tell("shard_copied", message, worker=call.seat.name, copy=seat.name)
            self._give(call.request, call.position, seat)

    def _lose(
        self, seat: Seat, actor: Any, reason: str, error: BaseException | None = None, kind: str = "worker_lost"
    ) -> None:
        """Give up an actor, and do again what it was given; what it still answers is ignored."""
        if seat.actor is not actor:
            return
        self.pool.lose(seat, reason, error, kind)
        for reference, call in list(self._calls.items()):
            if call.actor is actor:
                del self._calls[reference]
                self._requeue(call)
