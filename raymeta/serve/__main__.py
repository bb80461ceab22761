"""Few-shot classification as a service: `python -m raymeta.serve MODEL --port 7117`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import Any

from raymeta.errors import ConfigError, DataError
from raymeta.system.command_line import Parser, add_verbose, dashed, run_command
from raymeta.system.reading import first_line, read_regular

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST_TOKEN = 16


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("serve", lambda: _serve(arguments), verbose=arguments.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raymeta serve",
        description="Serve a trained model on Ray Serve: classifiers are created from a few examples of each class, "
        "and asked, over HTTP or on the page at /. The model is not changed.",
        epilog="example: raymeta serve latest, then open http://127.0.0.1:7117/ in a browser",
    )
    parser.add_argument("model", metavar="MODEL", help="a run (folder, id, URI or `latest`), one of its checkpoints, "
                        "or an exported folder")  # fmt: skip
    parser.add_argument("--port", type=int, default=7117, help="port; 0 takes a free one [7117]")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; any but this machine's own needs "
                        "--token-file [127.0.0.1]")  # fmt: skip
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="a file with the token that requests must "
                        f"show, of at least {SHORTEST_TOKEN} characters")  # fmt: skip
    parser.add_argument("--replicas", type=int, default=1, metavar="N", help="processes that compute [1]")
    parser.add_argument("--store", type=Path, default=Path("classifiers"), metavar="DIR",
                        help="folder of the classifiers, which survive a restart [classifiers]")  # fmt: skip
    parser.add_argument("--output", default="results", help="folder or URI of runs given by id [results]")
    parser.add_argument("--trust", action="store_true", help="import the code that the model names")
    add_verbose(parser)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    token = _token(arguments)
    if not 0 <= arguments.port <= 65535:
        raise ConfigError(f"--port {arguments.port} is not between 0 and 65535")
    if not 1 <= arguments.replicas <= 256:
        raise ConfigError(f"--replicas {arguments.replicas} is not between 1 and 256")
    from raymeta.serve.replicas import require_installed

    require_installed()
    about = _about(arguments)
    from raymeta.serve.server import listening
    from raymeta.serve.store import Store

    Store(arguments.store).prepare()
    with listening(arguments.host, arguments.port) as socket:
        return _run(arguments, token, about, socket)


def _token(arguments: argparse.Namespace) -> str | None:
    """Raises `ConfigError` where others would reach the service without one."""
    path = arguments.token_file
    if path is None:
        if arguments.host not in LOOPBACK:
            raise ConfigError(f"--host {arguments.host} lets others in: give --token-file FILE with a secret token")
        return None
    try:
        token = read_regular(path).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise DataError(f"--token-file {path} cannot be read: {first_line(error)}") from error
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise ConfigError(f"--token-file {path} does not hold one token of at least {SHORTEST_TOKEN} characters")
    return token


def _about(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the service says of its model. It is opened here once, so that a mistake is told before Ray starts."""
    from raymeta.serve.limits import Limits
    from raymeta.use.adapted import require_new_classes
    from raymeta.use.opening import open_model

    model = open_model(arguments.model, output=arguments.output, trust=arguments.trust)
    require_new_classes(model)
    reader = model.reader
    return {"name": model.name, "kind": reader.kind, "item": reader.item, "limits": dataclasses.asdict(Limits())}


def _run(arguments: argparse.Namespace, token: str | None, about: dict[str, Any], socket: Any) -> int:
    from raymeta.serve.door import application
    from raymeta.serve.limits import Limits
    from raymeta.serve.replicas import running
    from raymeta.serve.server import server
    from raymeta.serve.store import Store

    limits, store = Limits(), Store(arguments.store)
    with running(
        arguments.model, output=arguments.output, store=arguments.store, limits=limits, trust=arguments.trust,
        replicas=arguments.replicas,
    ) as replicas:  # fmt: skip
        app = application(replicas, store, about, token=token, limits=limits)
        name = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(f"{about['name']} is served at http://{name}:{socket.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
        asyncio.run(server(app, limits).serve([socket]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
