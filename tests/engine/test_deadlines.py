"""Late shards and hung workers, decided from ages alone."""

from __future__ import annotations

import subprocess
import sys

from raymeta.engine.executors.ray_actors.deadlines import (
    HUNG_FACTOR,
    HUNG_FIRST_S,
    HUNG_LEAST_S,
    LATE_FACTOR,
    LATE_S,
    REMEMBERED,
    Deadlines,
)


def after(*seconds: float, timeout_s: float | None = None) -> Deadlines:
    """Deadlines that have seen shards of these times."""
    deadlines = Deadlines(timeout_s)
    for each in seconds:
        deadlines.finished("gradient", each, 1)
    return deadlines


def test_before_the_first_shard_nothing_is_late_and_a_worker_has_long() -> None:
    deadlines = after()
    assert deadlines.usual_s("gradient") is None
    assert deadlines.decide("gradient", HUNG_FIRST_S, 1, copies=1, waiting=0) == "wait"
    assert deadlines.decide("gradient", HUNG_FIRST_S + 0.1, 1, copies=1, waiting=0) == "give_up"


def test_a_late_shard_is_copied_once_and_only_when_nothing_else_waits() -> None:
    deadlines = after(1.0, 2.0, 9.0)  # the usual time is their median
    late_s = LATE_FACTOR * 2.0 + LATE_S
    assert deadlines.decide("gradient", late_s - 0.1, 1, copies=1, waiting=0) == "wait"
    assert deadlines.decide("gradient", late_s, 1, copies=1, waiting=0) == "copy"
    assert deadlines.decide("gradient", late_s, 1, copies=2, waiting=0) == "wait", "it is being copied"
    assert deadlines.decide("gradient", late_s, 1, copies=1, waiting=1) == "wait", "others have not begun"
    assert deadlines.decide("gradient", late_s, 1, copies=0, waiting=0) == "wait", "nobody needs it"


def test_a_hung_worker_is_given_up_even_where_nobody_needs_its_shard() -> None:
    slow, fast = after(10.0), after(0.01)
    assert slow.hung_after_s("gradient") == HUNG_FACTOR * 10.0
    assert fast.hung_after_s("gradient") == HUNG_LEAST_S
    assert fast.decide("gradient", HUNG_LEAST_S, 1, copies=0, waiting=3) == "wait"
    assert fast.decide("gradient", HUNG_LEAST_S + 0.1, 1, copies=0, waiting=3) == "give_up"


def test_a_shard_behind_another_has_twice_the_time() -> None:
    deadlines = after(10.0)
    assert deadlines.hung_after_s("gradient", 2) == 2 * deadlines.hung_after_s("gradient")
    assert deadlines.is_late("gradient", LATE_FACTOR * 10.0 + LATE_S, 1)
    assert not deadlines.is_late("gradient", LATE_FACTOR * 10.0 + LATE_S, 2)
    deadlines.finished("gradient", 20.0, 2)
    assert deadlines.usual_s("gradient") == 10.0


def test_a_worker_that_may_be_compiling_has_the_time_of_a_first_shard() -> None:
    deadlines = after(1.0)
    options = {"copies": 0, "waiting": 1}
    assert deadlines.decide("gradient", HUNG_FIRST_S, 1, **options) == "give_up"
    assert deadlines.decide("gradient", HUNG_FIRST_S, 1, **options, compiling=True) == "wait"
    assert deadlines.decide("gradient", HUNG_FIRST_S + 0.1, 1, **options, compiling=True) == "give_up"


def test_a_timeout_of_the_persons_own_counts_alone() -> None:
    for deadlines in (after(timeout_s=5.0), after(100.0, timeout_s=5.0)):
        assert deadlines.hung_after_s("gradient", 2) == 10.0
        assert deadlines.decide("gradient", 10.1, 2, copies=1, waiting=0) == "give_up"


def test_kinds_of_jobs_do_not_mix_and_old_times_are_forgotten() -> None:
    deadlines = after(100.0)
    assert deadlines.usual_s("scores") is None
    for _ in range(REMEMBERED):
        deadlines.finished("gradient", 1.0, 1)
    assert deadlines.usual_s("gradient") == 1.0


def test_it_needs_no_ray() -> None:
    module = "raymeta.engine.executors.ray_actors.deadlines"
    subprocess.run([sys.executable, "-c", f"import sys; sys.modules['ray'] = None; import {module}"], check=True)
