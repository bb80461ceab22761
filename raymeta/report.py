"""Write runs or a sweep as one HTML file that opens offline: `python -m raymeta.report RUN -o report.html`."""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import shlex
import socket
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from raymeta.dashboard.assets import PLOTLY, SCRIPTS, asset
from raymeta.errors import ConfigError, DataError
from raymeta.runs import layout
from raymeta.runs.listing import told_apart, without_repetition
from raymeta.runs.provenance import package_version
from raymeta.runs.read import Run, resolve_run
from raymeta.system.command_line import Parser, add_verbose, dashed, run_command, say
from raymeta.system.files import json_text
from raymeta.system.outputs import STDOUT, require_output, write_output
from raymeta.system.redact import without_secrets
from raymeta.views.pages.compare import compare_page
from raymeta.views.pages.run import run_page
from raymeta.views.pages.sweep import SWEEP_FILES, sweep_page
from raymeta.views.sources.run import RunSource
from raymeta.views.sources.sweep import SweepSource

LIMIT_BYTES = 8 * 10**6
"""A report stays below this: pictures of episodes are left out where they would make it larger."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("report", lambda: _report(arguments, made(argv)), verbose=arguments.verbose)


def made(argv: Sequence[str] | None = None) -> str:
    """When, where, by which version and by which command a report is written."""
    now, given = datetime.now().astimezone(), sys.argv[1:] if argv is None else argv
    command = shlex.join(["raymeta", "report", *given])
    version = package_version("raymeta") or "of unknown version"
    return f"Written {now:%Y-%m-%d %H:%M %Z} on {socket.gethostname()} by raymeta {version}: {without_secrets(command)}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="raymeta report", description=__doc__)
    parser.add_argument("references", nargs="+", metavar="RUN|SWEEP", help="folders, ids, or `latest`")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="- is standard output "
                        "[report.html in the folder of the first]")  # fmt: skip
    parser.add_argument("--output", default="results", help="folder or URI of runs given by id [results]")
    add_verbose(parser)
    return parser


def _report(arguments: argparse.Namespace, head: str) -> int:
    sweeps = [_sweep(reference, arguments.output) for reference in arguments.references]
    if any(sweeps) and len(sweeps) > 1:
        raise ConfigError("a report holds one sweep, or one or more runs")
    sources: Sequence[SweepSource | RunSource] = [sweep for sweep in sweeps if sweep]
    runs: list[Run] = []
    if not sources:
        runs = without_repetition([resolve_run(reference, arguments.output) for reference in arguments.references])
        sources = [RunSource(run.path, name, run.place) for run, name in zip(runs, told_apart(runs), strict=True)]
    if arguments.out is None and any(run.mirror for run in runs):
        raise ConfigError(f"{runs[0].place} is in a store, where a report is not written: name a file with -o FILE")
    out = require_output(arguments.out or sources[0].path / layout.REPORT, "-o")
    data = report_html(sources, head).encode()
    write_output(out, data, "-o")  # bytes: looking for credentials would change scripts, which the policy names
    if out != STDOUT:
        say(f"{out} ({len(data) / 1e6:.1f} MB)")
    return 0


def _sweep(reference: str, output: str) -> SweepSource | None:
    for path in (Path(reference), Path(output) / layout.SWEEPS / reference):
        if not (path / layout.RUN).is_file() and any((path / name).is_file() for name in SWEEP_FILES):
            return SweepSource(path)
    return None


def report_html(sources: Sequence[SweepSource | RunSource], head: str = "") -> str:
    """The report as HTML, with `head` on top. Raises `DataError` where it cannot stay below `LIMIT_BYTES`."""
    pages = _pages(sources)
    text = _document(pages, head)
    if len(text.encode()) > LIMIT_BYTES:
        for page in pages:
            page["sections"] = [s for s in page["sections"] if s["id"] != "episodes"]
        text = _document(pages, head)
    if len(text.encode()) > LIMIT_BYTES:
        raise DataError(
            f"a report of {len(sources)} runs is larger than {LIMIT_BYTES / 1e6:g} MB: report fewer at once"
        )
    return text


def _pages(sources: Sequence[SweepSource | RunSource]) -> list[dict[str, Any]]:
    runs = [source for source in sources if isinstance(source, RunSource)]
    pages = [run_page(source) if isinstance(source, RunSource) else sweep_page(source) for source in sources]
    return [compare_page(runs), *pages] if len(runs) > 1 else pages


def _document(pages: Sequence[dict[str, Any]], head: str) -> str:
    """One file: the policy lets run exactly the scripts written here, and lets nothing be fetched from anywhere."""
    scripts = [_text(name) for name in (PLOTLY, *SCRIPTS, "report.js")]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"
    # Inside a script element only `<` could end it; JSON may write it as an escape.
    data = json_text(list(pages)).replace("<", "\\u003c")
    title = html.escape(f"{pages[0]['title']} · raymeta report")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{title}</title><style>{_text('style.css')}</style></head><body>",
            '<header class="top"><span class="brand">raymeta report</span>',
            f'<span class="quiet made">{html.escape(head)}</span></header>',
            '<main id="main" tabindex="-1"><noscript>This report needs JavaScript.</noscript></main>',
            f'<script type="application/json" id="pages">{data}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>",
            "",
        ]
    )


def _text(name: str) -> str:
    text = asset(name)
    if text is None or "</script" in text:
        raise DataError(f"{name} of the front end is missing or cannot stand inside a page: install raymeta again")
    return text


if __name__ == "__main__":
    sys.exit(main())
