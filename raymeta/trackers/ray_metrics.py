"""A run as Ray metrics, which every node of a cluster offers to Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from raymeta.trackers import names
from raymeta.trackers.base import WorkerRow
from raymeta.trackers.scores import Scores

_RUN = ("run",)
_WORKER = ("run", "worker", "node")


class Metric(NamedTuple):
    """One series as Ray knows it; Prometheus sees it as `ray_` and its name."""

    kind: Literal["Counter", "Gauge"]
    tags: tuple[str, ...]
    description: str


METRICS: Final[dict[str, Metric]] = {
    "raymeta_step": Metric("Gauge", _RUN, "outer steps done"),
    "raymeta_step_seconds": Metric("Gauge", _RUN, "seconds of the last outer step"),
    "raymeta_driver_busy_fraction": Metric("Gauge", _RUN, "part of the last step in which the driver did not wait"),
    "raymeta_workers": Metric("Gauge", _RUN, "workers that may be given shards"),
    "raymeta_tasks_total": Metric("Counter", _WORKER, "tasks computed"),
    "raymeta_tasks_per_s": Metric("Gauge", _WORKER, "tasks a second while computing"),
    "raymeta_queue_depth": Metric("Gauge", _WORKER, "shards given to the worker and not answered"),
    "raymeta_worker_rss_bytes": Metric("Gauge", _WORKER, "memory that the worker's process holds"),
    "raymeta_worker_restarts_total": Metric("Counter", _WORKER, "times the worker was started again"),
}
"""All series of a run, by name."""


class RayMetrics:
    """A tracker that passes a run on to Ray's metrics. Ray must be initialised."""

    def __init__(self, run: str) -> None:
        from ray.util import metrics

        self._run = {"run": run}
        self.series: dict[str, Any] = {
            name: getattr(metrics, m.kind)(name, description=m.description, tag_keys=m.tags)
            for name, m in METRICS.items()
        }
        self._counted: Counter[tuple[str, str]] = Counter()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.series["raymeta_step"].set(step, self._run)
        self.series["raymeta_step_seconds"].set(metrics[names.STEP_S], self._run)
        self.series["raymeta_driver_busy_fraction"].set(metrics[names.DRIVER_BUSY], self._run)

    def workers(self, rows: Sequence[WorkerRow]) -> None:
        self.series["raymeta_workers"].set(len(rows), self._run)
        for row in rows:
            tags = {**self._run, "worker": row.name, "node": row.node}
            self.series["raymeta_tasks_per_s"].set(row.tasks_per_s, tags)
            self.series["raymeta_queue_depth"].set(row.queue, tags)
            self.series["raymeta_worker_rss_bytes"].set(row.rss_bytes, tags)
            self._count("raymeta_tasks_total", row.tasks, tags)
            self._count("raymeta_worker_restarts_total", row.restarts, tags)

    def event(self, kind: str, message: str, **fields: object) -> None: ...

    def validation(self, step: int, scores: Scores) -> None: ...

    def close(self) -> None: ...

    def _count(self, name: str, total: int, tags: dict[str, str]) -> None:
        """Bring a counter to `total`, which counts the worker wherever it is."""
        more = total - self._counted[name, tags["worker"]]
        if more > 0:
            self.series[name].inc(more, tags)
            self._counted[name, tags["worker"]] = total
