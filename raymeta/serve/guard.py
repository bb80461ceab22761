"""What stands before every request: who asks, how large and how slow the body is, and what every answer says."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raymeta.dashboard.guard import HEADERS, LOOPBACK, POLICY, host_of
from raymeta.serve.limits import Limits, Refused
from raymeta.system.text import clean

OPEN = ("/", "/docs", "/openapi.json", "/health", "/ready")
"""Addresses that ask for no token, beside those of the page's files: they tell nothing of classifiers."""
Told = Callable[[str, int, float], None]
"""Hears of every answer: method, status, seconds."""


class Guard:
    """An ASGI application around another. It lets nothing of an error out but its sentence."""

    def __init__(self, app: ASGIApp, *, token: str | None, limits: Limits, told: Told) -> None:
        self._app, self._token, self._limits, self._told = app, token, limits, told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                add_headers(message)
            await send(message)

        try:
            require_allowed(scope, self._token, self._limits)
            await self._app(scope, self._bounded(receive), sending)
        except Exception as error:
            if not status:
                await answer_of(error)(scope, receive, sending)
        self._told(scope["method"], status, time.monotonic() - started)

    def _bounded(self, receive: Receive) -> Receive:
        """`receive`, which refuses a body that is too large or too slow."""
        size, end = 0, time.monotonic() + self._limits.body_s
        complete = False

        async def bounded() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(end - time.monotonic(), 0.001))
            except TimeoutError as error:
                raise Refused(408, f"the body was not there after {self._limits.body_s:g} s: send it again") from error
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            require_size(size, self._limits)
            return message

        return bounded


def require_allowed(scope: Scope, token: str | None, limits: Limits) -> None:
    """Raises `Refused` for strangers, other web pages, and bodies that say that they are too large."""
    headers = Headers(scope=scope)
    if token is None and host_of(headers.get("host", "")) not in LOOPBACK:
        raise Refused(403, "this service answers to 127.0.0.1 and localhost only")
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") == "cross-site" or (
        origin is not None and urlsplit(origin).netloc != headers.get("host", "")
    ):
        raise Refused(403, "requests of other web pages are refused")
    if token is not None and not _is_open(scope["path"]) and not shows(headers, token):
        raise Refused(401, "send the header Authorization: Bearer TOKEN with the token of this service")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "the header Content-Length is no number")
    require_size(int(length[:20]), limits)


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/static/")


def shows(headers: Mapping[str, str], token: str) -> bool:
    """Whether the token is shown, compared in constant time."""
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    return secrets.compare_digest(shown.strip().encode(), token.encode()) and scheme.lower() == "bearer"


def require_size(size: int, limits: Limits) -> None:
    if size > limits.body_bytes:
        raise Refused(413, f"the body has more than {limits.body_bytes:,} bytes: send fewer or smaller examples")


def answer_of(error: Exception) -> JSONResponse:
    """What a request is told of an error: one sentence. What nobody foresaw is told to the service's owner only."""
    if isinstance(error, Refused):
        headers = {} if error.retry_s is None else {"Retry-After": str(error.retry_s)}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": clean(error.reason)[:500]}, error.status, headers)
    print(f"raymeta serve: {type(error).__name__}: {clean(str(error))[:500]}", file=sys.stderr, flush=True)
    return JSONResponse({"error": "the service failed at this request; its owner was told why"}, 500)


def add_headers(message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers[name] = value
    headers.setdefault("Content-Security-Policy", POLICY)
    headers.setdefault("Cache-Control", "no-store")
