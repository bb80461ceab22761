"""The classifiers on Ray Serve: replicas share the store, and what a lost one was asked goes to another."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raymeta.engine.executors.ray_actors.cluster import QUIET, close_token
from raymeta.errors import EnvironmentProblem
from raymeta.serve.classifiers import Classifiers, Item
from raymeta.serve.limits import Limits, Refused
from raymeta.serve.store import Store
from raymeta.system.reading import first_line
from raymeta.system.signals import handlers_kept
from raymeta.use.opening import open_model

NAME = "raymeta"
TRIES = 4
"""Times that a request is given to a replica; each change of a classifier may be done twice without harm."""
PAUSE_S = 0.25
"""Before the next try, which grows with each."""
WAITING = 64
"""Requests that wait for a free replica; more are told to come again."""


class Replica:
    """One process of the service. Answers are data, since Ray would wrap what it raises."""

    def __init__(self, reference: str, output: str, store: str, limits: Limits, trust: bool) -> None:
        model = open_model(reference, output=output, trust=trust)
        self._classifiers = Classifiers(model, Store(Path(store)), limits, trust=trust)

    async def create(self, name: str, items: Sequence[Item]) -> Any:
        return await _as_data(lambda: self._classifiers.create(name, items))

    async def predict(self, name: str, items: Sequence[Item], unknown: bool) -> Any:
        return await _as_data(lambda: self._classifiers.predict(name, items, unknown=unknown))


async def _as_data(do: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        return "done", await asyncio.to_thread(do)
    except Refused as error:
        return "refused", error.status, error.reason


class Replicas:
    """The backend on a handle of Ray Serve."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def create(self, name: str, items: Sequence[Item]) -> None:
        await _tried(lambda: self._handle.create.remote(name, items))

    async def predict(self, name: str, items: Sequence[Item], unknown: bool) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = await _tried(lambda: self._handle.predict.remote(name, items, unknown))
        return answers

    async def ready(self) -> bool:
        """Whether a replica is there."""
        from ray import serve

        status = await asyncio.to_thread(serve.status)
        deployments = status.applications[NAME].deployments if NAME in status.applications else {}
        return any(state == "RUNNING" for found in deployments.values() for state in found.replica_states)


async def _tried(ask: Callable[[], Awaitable[Any]]) -> Any:
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

    for turn in range(TRIES):
        try:
            kind, *rest = await ask()
        except BackPressureError as error:
            raise Refused(503, "the service is busy: try again", retry_s=1) from error
        except (RayActorError, DeploymentUnavailableError):  # the replica died, or none is there
            await asyncio.sleep(PAUSE_S * (turn + 1))
            continue
        if kind == "refused":
            raise Refused(*rest)
        return rest[0]
    raise Refused(503, "a replica was lost while it computed this: try again", retry_s=1)


@contextmanager
def running(
    reference: str, *, output: str, store: Path, limits: Limits, trust: bool, replicas: int
) -> Iterator[Replicas]:
    """Replicas on a Ray of this machine's own, which ends with them."""
    ray, serve = _ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        with handlers_kept():
            cores = max(os.cpu_count() or 1, replicas)
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **QUIET)
            close_token()
            serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
            deployment = serve.deployment(
                num_replicas=replicas,
                max_ongoing_requests=4,
                max_queued_requests=WAITING,
                logging_config={"log_level": "ERROR", "enable_access_log": False},
            )(Replica)
            place = str(Path(reference).resolve()) if Path(reference).exists() else reference
            bound = deployment.bind(place, _absolute(output), str(store.resolve()), limits, trust)
            handle = serve.run(bound, name=NAME, route_prefix=None)
        yield Replicas(handle)
    except RuntimeError as error:
        raise EnvironmentProblem(f"Ray Serve did not start: {first_line(error)}") from error
    finally:
        with handlers_kept():
            if ray.is_initialized():
                serve.shutdown()
            ray.shutdown()


def _absolute(output: str) -> str:
    return output if "://" in output else str(Path(output).resolve())


def _ray() -> tuple[Any, Any]:
    require_installed()
    import ray
    from ray import serve

    return ray, serve


def require_installed() -> None:
    """Raises `EnvironmentProblem` without the packages of the extra `serve`."""
    try:
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
        from ray import serve  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem("raymeta serve needs Ray Serve: pip install 'raymeta[serve]'") from error
