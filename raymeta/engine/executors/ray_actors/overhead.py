"""Whether workers are worth it."""

from __future__ import annotations

import time

from raymeta.engine.executors.ray_actors.request import Request

PACE_STEPS = 20
"""Steps after which it is known whether they are worth it."""
PACE_MARGIN = 1.1
"""How much slower than one process workers may be before a run says so."""


class Overhead:
    """The time of the steps against the time that the work itself took."""

    def __init__(self) -> None:
        self._steps, self._wall_s, self._work_s = 0, 0.0, 0.0

    def measure(self, request: Request, num_workers: int) -> str | None:
        """Take in a finished step; says once, after some steps, if one process would have been faster."""
        if request.job.kind != "gradient" or self._steps > PACE_STEPS:
            return None
        self._steps += 1
        if self._steps > PACE_STEPS // 4:  # the first ones warm up
            self._wall_s += time.monotonic() - request.began
            self._work_s += request.seconds
        if self._steps <= PACE_STEPS or self._wall_s <= PACE_MARGIN * self._work_s:
            return None
        steps = PACE_STEPS - PACE_STEPS // 4 + 1
        wall, work = 1000 * self._wall_s / steps, 1000 * self._work_s / steps
        who = "one worker is" if num_workers == 1 else f"{num_workers} workers are"
        return (
            f"{who} slower than one process: a step takes {wall:.1f} ms, and its shards one after the other "
            f"{work:.1f} ms. Use --workers 0, or give a step more work (--meta_batch_size)"
        )
