"""The server: pages as JSON, files of runs, and the front end. It reads, and never writes."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from raymeta.dashboard import ray_nodes
from raymeta.dashboard.assets import TYPES, asset
from raymeta.dashboard.guard import FILE_POLICY, add_headers, guard, inside
from raymeta.dashboard.library import Library
from raymeta.system.files import json_text
from raymeta.views.pages.bench import bench_page
from raymeta.views.pages.cluster import cluster_page
from raymeta.views.pages.compare import MAX_RUNS, compare_page
from raymeta.views.pages.run import run_page
from raymeta.views.pages.runs import listed, runs_page
from raymeta.views.pages.sweep import sweep_page
from raymeta.views.sources.run import RunSource

LIBRARY: web.AppKey[Library] = web.AppKey("library", Library)
LOCK: web.AppKey[threading.Lock] = web.AppKey("lock", threading.Lock)
RAY_URL: web.AppKey[str] = web.AppKey("ray_url", str)

TEXT_SUFFIXES = frozenset({".json", ".jsonl", ".yaml", ".txt", ".csv", ".log"})
ASSET_HEADERS = {"Cache-Control": "no-cache"}


def application(
    folder: Path, *, token: str | None = None, ray_url: str = "", measurements: Sequence[Path] = ()
) -> web.Application:
    """The dashboard of the runs in `folder`; with a `token` it answers whoever shows it, else this machine only.

    `measurements` are files of `raymeta bench`, or folders of them, beside those in `folder/benchmarks`.
    """
    app = web.Application(middlewares=[guard(token)])
    app[LIBRARY], app[LOCK], app[RAY_URL] = Library(folder, measurements), threading.Lock(), ray_url
    app.on_response_prepare.append(add_headers)
    for path in ("/", "/compare", "/cluster", "/bench", "/run/{id}", "/sweep/{id}"):
        app.router.add_get(path, shell)
    app.router.add_get("/static/{name}", static)
    app.router.add_get("/api/runs", api_runs)
    app.router.add_get("/api/pages/runs", page_of_runs)
    app.router.add_get("/api/pages/compare", page_of_comparison)
    app.router.add_get("/api/pages/cluster", page_of_cluster)
    app.router.add_get("/api/pages/bench", page_of_bench)
    app.router.add_get("/api/pages/run/{id}", page_of_run)
    app.router.add_get("/api/pages/sweep/{id}", page_of_sweep)
    app.router.add_get("/files/{run}/{path:.+}", file_of_run)
    return app


async def shell(request: web.Request) -> web.Response:
    return web.Response(text=asset("index.html"), content_type="text/html")


async def static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    text = asset(name)
    if text is None:
        raise web.HTTPNotFound(text="there is no such file\n")
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"' if len(text) < 10**6 else f'"{len(text)}"'
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers={"ETag": tag, **ASSET_HEADERS})
    kind = TYPES[Path(name).suffix]
    answer = web.Response(text=text, content_type=kind, headers={"ETag": tag, **ASSET_HEADERS})
    answer.enable_compression()
    return answer


async def api_runs(request: web.Request) -> web.Response:
    """A JSON list of all runs, newest first, with the names of `raymeta runs ls --json`."""
    text = await _reading(request, lambda library: json_text([listed(source) for source in library.runs()]))
    return web.Response(text=text, content_type="application/json")


async def page_of_runs(request: web.Request) -> web.Response:
    def build(library: Library) -> str:
        return json_text(runs_page(str(library.folder), library.runs(), library.sweeps()))

    return _answer(request, await _reading(request, build))


async def page_of_run(request: web.Request) -> web.Response:
    name, seen = request.match_info["id"], request.headers.get("If-None-Match")

    def build(library: Library) -> tuple[str | None, str]:
        source = library.run(name)
        if source is None:
            raise web.HTTPNotFound(text="there is no such run (any more)\n")
        tag = f'"{source.version}"'
        return (None if tag == seen else json_text(run_page(source, picture=picture_of(source)))), tag

    text, tag = await _reading(request, build)
    return _not_modified(tag) if text is None else _json(text, tag)


def picture_of(source: RunSource) -> Callable[[Path], str]:
    """Addresses of pictures in a run's folder."""
    return lambda path: f"/files/{quote(source.id, safe='')}/{quote(path.relative_to(source.path).as_posix())}"


async def page_of_comparison(request: web.Request) -> web.Response:
    query = request.query
    names = [name for name in query.get("runs", "").split(",") if name][:MAX_RUNS]
    options = {"metric": query.get("metric", ""), "axis": query.get("axis", "step")}

    def build(library: Library) -> str:
        sources = [source for name in dict.fromkeys(names) if (source := library.run(name)) is not None]
        if not sources:
            raise web.HTTPNotFound(text="none of these runs is there; choose some in the list of runs\n")
        return json_text(compare_page(sources, grouped=query.get("grouped") == "1", **options))

    return _answer(request, await _reading(request, build))


async def page_of_sweep(request: web.Request) -> web.Response:
    def build(library: Library) -> str:
        sweep = library.sweep(request.match_info["id"])
        if sweep is None:
            raise web.HTTPNotFound(text="there is no such sweep (any more)\n")
        return json_text(sweep_page(sweep, runs=library.trials(sweep)))

    return _answer(request, await _reading(request, build))


async def page_of_cluster(request: web.Request) -> web.Response:
    url = request.app[RAY_URL]
    nodes = await ray_nodes.nodes(url) if url else None

    def build(library: Library) -> str:
        running = [s for source in library.runs() if source.run.status == "running" if (s := library.run(source.id))]
        return json_text(cluster_page(running, ray_url=url, ray_nodes=nodes))

    return _answer(request, await _reading(request, build))


async def page_of_bench(request: web.Request) -> web.Response:
    chosen = request.query.get("result", "")

    def build(library: Library) -> str:
        return json_text(bench_page(str(library.folder / "benchmarks"), library.benches(), chosen=chosen))

    return _answer(request, await _reading(request, build))


async def file_of_run(request: web.Request) -> web.StreamResponse:
    """A file inside a run's folder: text and pictures to look at, anything else to save."""
    name, relative = request.match_info["run"], request.match_info["path"]

    def find(library: Library) -> Path | None:
        source = library.run(name)
        return inside(source.path, relative) if source else None

    path = await _reading(request, find)
    if path is None:
        raise web.HTTPNotFound(text="there is no such file in this run\n")
    headers = {"Content-Security-Policy": FILE_POLICY, "Content-Type": "application/octet-stream"}
    if path.suffix in TEXT_SUFFIXES:
        headers["Content-Type"] = "text/plain; charset=utf-8"
    elif path.suffix == ".png":
        headers["Content-Type"] = "image/png"
    else:
        headers["Content-Disposition"] = "attachment"
    return web.FileResponse(path, headers=headers)


async def _reading(request: web.Request, build: Callable[[Library], Any]) -> Any:
    """`build` in a thread, since it reads files; one at a time, since it keeps what it has read."""

    def locked() -> Any:
        with request.app[LOCK]:
            return build(request.app[LIBRARY])

    return await asyncio.to_thread(locked)


def _answer(request: web.Request, text: str) -> web.Response:
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'
    return _not_modified(tag) if request.headers.get("If-None-Match") == tag else _json(text, tag)


def _json(text: str, tag: str) -> web.Response:
    return web.Response(text=text, content_type="application/json", headers={"ETag": tag})


def _not_modified(tag: str) -> web.Response:
    return web.Response(status=304, headers={"ETag": tag})
