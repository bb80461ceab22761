"""The application that answers HTTP: classifiers are created, asked, listed, shown and deleted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from importlib.resources import files
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from raymeta.dashboard.assets import TYPES, asset
from raymeta.errors import DataError
from raymeta.serve.backend import Backend
from raymeta.serve.guard import Guard, answer_of
from raymeta.serve.limits import Limits, Refused
from raymeta.serve.metrics import TYPE, Metrics
from raymeta.serve.openapi import openapi
from raymeta.serve.store import Store
from raymeta.serve.uploads import examples, queries

T = TypeVar("T")
PAGES = {"/": "index.html", "/docs": "docs.html"}
SHARED = ("style.css", "dom.js")
"""Files of the dashboard's front end that the pages here use, too."""


def application(
    backend: Backend, store: Store, about: dict[str, Any], *, token: str | None = None, limits: Limits | None = None
) -> ASGIApp:
    """The service over `backend`, whose classifiers lie in `store`; `about` is what it says of its model.

    With a `token` it answers whoever shows it, else this machine only.
    """
    limits = limits or Limits()
    door = _Door(backend, store, about, limits)
    one = "/api/classifiers/{id}"
    routes = [
        *(Route(path, page) for path in PAGES),
        Route("/static/{name}", static),
        Route("/openapi.json", door.schema),
        Route("/health", health),
        Route("/ready", door.ready),
        Route("/metrics", door.numbers),
        Route("/api/model", door.model),
        Route("/api/classifiers", door.listed),
        Route("/api/classifiers", door.create, methods=["POST"]),
        Route(one, door.show),
        Route(one, door.delete, methods=["DELETE"]),
        Route(one + "/predict", door.predict, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={Refused: _refused, HTTPException: _no_route})
    app.router.redirect_slashes = False
    return Guard(app, token=token, limits=limits, told=door.metrics.answered)


async def _refused(request: Request, error: Exception) -> Response:
    return answer_of(error)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {404: "there is no such address: see /docs", 405: f"{request.url.path} knows no {request.method}"}
    answer = answer_of(Refused(error.status_code, reasons.get(error.status_code, error.detail)))
    answer.headers.update(error.headers or {})
    return answer


async def page(request: Request) -> Response:
    return _file(PAGES[request.url.path])


async def static(request: Request) -> Response:
    return _file(request.path_params["name"])


def _file(name: str) -> Response:
    own = {item.name: item for item in files("raymeta.serve").joinpath("static").iterdir()}
    text = own[name].read_text(encoding="utf-8") if name in own else asset(name) if name in SHARED else None
    if text is None:
        raise Refused(404, "there is no such file")
    kind = TYPES["." + name.rpartition(".")[2]]
    return Response(text, media_type=kind, headers={"Cache-Control": "no-cache"})


async def health(request: Request) -> Response:
    """The service lives; whether it can answer is /ready."""
    return JSONResponse({"status": "alive"})


class _Door:
    def __init__(self, backend: Backend, store: Store, about: dict[str, Any], limits: Limits) -> None:
        self._backend, self._store, self._about, self._limits = backend, store, about, limits
        self._coming = 0
        self.metrics = Metrics(lambda: len(store.ids()))

    async def schema(self, request: Request) -> Response:
        return JSONResponse(openapi(self._limits))

    async def ready(self, request: Request) -> Response:
        if not await self._backend.ready():
            raise Refused(503, "no replica is ready: try again", retry_s=1)
        return JSONResponse({"status": "ready"})

    async def numbers(self, request: Request) -> Response:
        return Response(await asyncio.to_thread(self.metrics.text), headers={"Content-Type": TYPE})

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._about)

    async def listed(self, request: Request) -> Response:
        return JSONResponse({"classifiers": await asyncio.to_thread(self._summaries)})

    def _summaries(self) -> list[dict[str, Any]]:
        return [self._summary(name) for name in self._store.ids()]

    def _summary(self, name: str) -> dict[str, Any]:
        """A damaged one hides none of the others."""
        try:
            return summary(self._store, name)
        except (DataError, OSError, KeyError):
            return {"id": name, "error": "the files of this classifier are damaged, or it was just deleted"}

    async def show(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self._summary, self._id(request)))

    async def delete(self, request: Request) -> Response:
        if not await asyncio.to_thread(self._store.remove, self._id(request)):
            raise Refused(404, "there is no such classifier")
        return Response(status_code=204)

    async def create(self, request: Request) -> Response:
        """One place in the store is kept for each that is on its way."""
        items = await examples(request, self._limits)
        if len(self._store.ids()) + self._coming >= self._limits.classifiers:
            raise Refused(409, f"there are {self._limits.classifiers} classifiers, and no more are kept: delete some")
        self._coming += 1
        try:
            name = self._store.new_id()
            await self._in_time(self._backend.create(name, items))
        finally:
            self._coming -= 1
        content = await asyncio.to_thread(self._summary, name)
        return JSONResponse(content, 201, {"Location": f"/api/classifiers/{name}"})

    async def predict(self, request: Request) -> Response:
        name = self._id(request)
        unknown = request.query_params.get("unknown", "0")
        if unknown not in ("0", "1"):
            raise Refused(422, "unknown is 0 or 1")
        items = await queries(request, self._limits)
        answers = await self._in_time(self._backend.predict(name, items, unknown == "1"))
        return JSONResponse({"answers": answers})

    def _id(self, request: Request) -> str:
        name: str = request.path_params["id"]
        if not self._store.has(name):
            raise Refused(404, "there is no such classifier")
        return name

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(work, self._limits.answer_s)
        except TimeoutError as error:
            reason = f"it took longer than {self._limits.answer_s:g} s: try again, or send fewer examples"
            raise Refused(503, reason, retry_s=5) from error


def summary(store: Store, name: str) -> dict[str, Any]:
    """What is told of a classifier: its classes, and how far to trust it."""
    facts = store.facts(name)
    left_out, classes = facts["left_out"], facts["classes"]
    created = (store.folder / name).stat().st_mtime
    return {
        "id": name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created)),
        "classes": classes,
        "examples": len(facts["names"]),
        "guessing": 1 / len(classes),
        "leave_one_out": left_out and {key: left_out[key] for key in ("accuracy", "low", "high", "tried")},
        "calibrated": facts["calibration"] is not None,
        "unknown": facts["unknown_below"] is not None,
        "doubts": [
            {"example": facts["names"][d["place"]], "rather": classes[d["rather"]], "probability": d["probability"]}
            for d in facts["doubts"]
        ],
    }
