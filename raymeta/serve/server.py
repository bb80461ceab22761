"""Listening: a socket of our own, so that a busy port is one clear error, and uvicorn behind it."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from raymeta.errors import EnvironmentProblem
from raymeta.serve.limits import Limits

END_S = 5
"""Time that answers on their way have when the service is asked to end."""


def listening(host: str, port: int) -> socket.socket:
    """Raises `EnvironmentProblem` where that is not possible."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(address)
            found.listen(128)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port (0 takes a free one) or "
            "--host"
        ) from error
    return found


def server(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """To be run with `server(...).serve([listening(...)])`."""
    config = uvicorn.Config(
        app,
        http=_timed(limits.head_s),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        h11_max_incomplete_event_size=32 * 1024,
        timeout_graceful_shutdown=END_S,
    )
    return uvicorn.Server(config)


def _timed(head_s: float) -> type[asyncio.Protocol]:
    class Timed(H11Protocol):
        """Closes a connection whose request does not arrive: uvicorn would wait for ever."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._unwatch()
            super().send_400_response(msg)

        def _watch(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._unwatch()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(head_s, self._expire)

        def _unwatch(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _expire(self) -> None:
            if not self.transport.is_closing():
                self.transport.write(_late(head_s))
                self.transport.close()

    return Timed


def _late(head_s: float) -> bytes:
    body = json.dumps({"error": f"the request was not there after {head_s:g} s"}).encode()
    head = f"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
