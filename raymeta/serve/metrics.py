"""Numbers of the service for Prometheus, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
METHODS = ("GET", "HEAD", "POST", "DELETE")


class Metrics:
    """Answers by method and status, their time, and the classifiers that are there."""

    def __init__(self, classifiers: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter("raymeta_serve_answers", "Answers", ["method", "status"], registry=self._registry)
        self._seconds = Histogram(
            "raymeta_serve_seconds", "Time of an answer", ["method"], buckets=SECONDS, registry=self._registry
        )
        stored = Gauge("raymeta_serve_classifiers", "Classifiers in the store", registry=self._registry)
        stored.set_function(lambda: float(classifiers()))

    def answered(self, method: str, status: int, seconds: float) -> None:
        """A method that a stranger made up gets no row of its own."""
        known = method if method in METHODS else "other"
        self._answers.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
