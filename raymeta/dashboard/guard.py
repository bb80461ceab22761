"""What the server lets in, and what every answer says to the browser.

The server only reads, so the dangers are another web page reading runs through the browser (a foreign Host header by
DNS rebinding, cross-site requests), paths that lead out of a run, and text of a run that acts as a script.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
COOKIE = "raymeta_token"
# Styles may be inline, since plotly.js sets them; scripts may not, and nothing may be loaded from elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "raymeta",
}


def guard(token: str | None) -> Middleware:
    """A middleware: without a `token` only this machine's own names as Host, with one everybody who shows it."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"], text="this server only shows\n")
        if token is None and host_of(request.headers.get("Host", "")) not in LOOPBACK:
            raise web.HTTPForbidden(text="this dashboard answers to 127.0.0.1 and localhost only\n")
        headers = request.headers
        if headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate":
            raise web.HTTPForbidden(text="requests of other sites are refused\n")
        if token is not None and not _shows(request, token):
            if secrets.compare_digest(request.query.get("token", "").encode(), token.encode()):
                return _remember(request, token)
            raise web.HTTPUnauthorized(text="open the address with ?token=..., as the command printed it\n")
        return await handler(request)

    return check


def host_of(header: str) -> str:
    """The host of a Host header without its port: `[::1]:7007` is `::1`."""
    if header.startswith("["):
        inside, bracket, rest = header[1:].partition("]")
        return inside if bracket and (not rest or _is_port(rest)) else ""
    host, colon, port = header.partition(":")
    return host.lower() if not colon or _is_port(":" + port) else ""


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdigit()


def _shows(request: web.Request, token: str) -> bool:
    shown = request.cookies.get(COOKIE) or request.headers.get("Authorization", "").removeprefix("Bearer ")
    return secrets.compare_digest(shown.encode(), token.encode())


def _remember(request: web.Request, token: str) -> web.Response:
    """Put the token into a cookie and out of the address, where history and screenshots would keep it."""
    answer = web.Response(status=303, headers={"Location": str(request.rel_url.without_query_params("token"))})
    answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
    return answer


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal handler that gives every answer its headers, errors too."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers.setdefault("Cache-Control", "no-store")


def inside(folder: Path, relative: str) -> Path | None:
    """The regular file at `relative` below `folder`, links resolved; None for anything that is elsewhere or hidden."""
    parts = relative.split("/")
    if not relative or "\0" in relative or "\\" in relative or any(not p or p.startswith(".") for p in parts):
        return None
    try:
        root = folder.resolve(strict=True)
        path = root.joinpath(*parts).resolve(strict=True)
        return path if path.is_relative_to(root) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # gone, a loop of links, a name that is too long
        return None
