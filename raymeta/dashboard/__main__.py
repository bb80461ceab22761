"""Serve the runs of a folder to a browser, live: `python -m raymeta.dashboard DIR --port 7007`. It only reads."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import signal
import sys
import webbrowser
from importlib.util import find_spec
from pathlib import Path

from raymeta.dashboard.assets import PLOTLY, asset
from raymeta.errors import ConfigError, EnvironmentProblem
from raymeta.runs import layout
from raymeta.system.command_line import Parser, add_verbose, dashed, run_command

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("dashboard", lambda: _dashboard(arguments), verbose=arguments.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="raymeta dashboard", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("results"), metavar="DIR", help="[results]")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; any but this machine's own needs "
                        "a token [127.0.0.1]")  # fmt: skip
    parser.add_argument("--port", type=int, default=7007, help="port; 0 takes a free one [7007]")
    parser.add_argument("--open", action="store_true", help="open a browser")
    parser.add_argument("--token", help="what visitors must show; made up for a --host that others reach")
    parser.add_argument("--ray", default="http://127.0.0.1:8265", metavar="URL",
                        help="Ray's own dashboard, asked about the cluster's nodes; empty for none "
                        "[http://127.0.0.1:8265]")  # fmt: skip
    parser.add_argument("--bench", action="append", type=Path, default=[], metavar="PATH",
                        help="a file of raymeta bench, or a folder of them, shown beside DIR/benchmarks; may be "
                        "repeated")  # fmt: skip
    add_verbose(parser)
    return parser


def _dashboard(arguments: argparse.Namespace) -> int:
    if (arguments.directory / layout.RUN).is_file():
        raise ConfigError(f"{arguments.directory} is a single run: name the folder above it, or write a report of it")
    if not arguments.directory.is_dir() and str(arguments.directory) != "results":  # where the first run is to come
        raise ConfigError(f"there is no folder {arguments.directory}: name the folder of your runs, by default results")
    if arguments.ray and not arguments.ray.startswith(("http://", "https://")):
        raise ConfigError(f"--ray {arguments.ray}: write an address such as http://127.0.0.1:8265")
    if missing := [path for path in arguments.bench if not path.exists()]:
        raise ConfigError(f"--bench {missing[0]}: there is no such file or folder")
    if not 0 <= arguments.port <= 65535:
        raise ConfigError(f"--port {arguments.port} is not between 0 and 65535")
    if arguments.token is not None and len(arguments.token) < 8:
        raise ConfigError("--token needs at least 8 characters, or leave it out and one is made up")
    if find_spec("aiohttp") is None:
        raise EnvironmentProblem("the dashboard needs aiohttp: pip install 'raymeta[dashboard]'")
    asset(PLOTLY)
    token = arguments.token
    if token is None and arguments.host not in LOOPBACK:
        token = secrets.token_urlsafe(18)
    return asyncio.run(_serve(arguments, token))


async def _serve(arguments: argparse.Namespace, token: str | None) -> int:
    from aiohttp import web

    from raymeta.dashboard.server import application

    logging.getLogger("aiohttp.server").addFilter(_not_a_bad_request)
    app = application(arguments.directory, token=token, ray_url=arguments.ray.rstrip("/"), measurements=arguments.bench)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, arguments.host, arguments.port)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise EnvironmentProblem(
            f"cannot listen at {arguments.host}:{arguments.port}: {error.strerror or error}; choose another --port "
            f"(0 takes a free one) or --host"
        ) from error
    port = runner.addresses[0][1]
    name = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    url = f"http://{name}:{port}/" + (f"?token={token}" if token else "")
    print(f"{arguments.directory} is shown at {url} (Ctrl-C ends it)", flush=True)
    if arguments.open:
        webbrowser.open(url)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    await runner.cleanup()
    return 0


def _not_a_bad_request(record: logging.LogRecord) -> bool:
    """Bytes that are no HTTP are answered with 400; a traceback of the parser would tell nobody anything."""
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


if __name__ == "__main__":
    sys.exit(main())
