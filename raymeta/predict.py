"""Classify files with an adapted or a trained model: `python -m raymeta.predict MODEL FILE [FILE ...]`."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymeta.system.command_line import Parser, add_verbose, dashed, run_command, say
from raymeta.system.files import json_text, write_whole
from raymeta.system.quick_torch import import_torch

if TYPE_CHECKING:
    from raymeta.use.answers import Classifier, Prediction

MOST_ALTERNATIVES = 3
"""Of a table on the terminal."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("predict", lambda: _predict(arguments), verbose=arguments.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raymeta predict",
        description="Classify files with an adapted model, or with one that was trained on one training problem "
        "(--tasks classification) and knows its classes.",
        epilog="examples: raymeta predict my-classes new/*.jpg; find new | raymeta predict my-classes - --json; "
        "raymeta predict latest new/*.jpg",
    )
    parser.add_argument("model", metavar="ADAPTED|MODEL", help="a folder that raymeta adapt wrote; or, of a model of "
                        "one training problem, a run (folder, id, URI or `latest`), one of its checkpoints, or an "
                        "exported folder")  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help="files, folders of files (not deeper), patterns in "
                        "quotes, or - for names on standard input; tables of rows or texts")  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one array of {file, label, probability, alternatives}")
    form.add_argument("--csv", action="store_true", help="a row for each file")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a sheet with the pictures and the answers, too"
    )
    parser.add_argument("--unknown", action="store_true", help="call answers unknown that are less sure than nearly "
                        "all right ones on the support set")  # fmt: skip
    parser.add_argument("--output", default="results", help="folder or URI of runs given by id [results]")
    parser.add_argument("--trust", action="store_true", help="import the code that the model names")
    add_verbose(parser)
    return parser


def _predict(arguments: argparse.Namespace) -> int:
    import_torch()
    from raymeta.use.items import named_items
    from raymeta.use.opening import open_classifier
    from raymeta.use.sheet import sheet_html

    classifier = open_classifier(arguments.model, output=arguments.output, trust=arguments.trust)
    given, items = named_items(arguments.files, classifier.model.reader.kind)
    answers = list(_with_progress(classifier, items, unknown=arguments.unknown))
    if arguments.html is not None:
        write_whole(arguments.html, sheet_html(classifier, given, items, answers).encode())
    say(_text(arguments, given, answers))
    return 0


def _with_progress(classifier: Classifier, items: Sequence[Any], *, unknown: bool) -> Iterator[Prediction]:
    """On a terminal with a bar, of many files."""
    answers = classifier.predict_files(items, unknown=unknown)
    if len(items) < 512 or not sys.stderr.isatty():
        return answers
    from rich.progress import track

    return iter(track(answers, total=len(items), description="predicting"))


def _text(arguments: argparse.Namespace, names: Sequence[str], answers: Sequence[Prediction]) -> str:
    pairs = list(zip(names, answers, strict=True))
    if arguments.json:
        return json_text([answer.as_json(name) for name, answer in pairs], indent=2)
    if arguments.csv:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["file", "label", "probability"])
        writer.writerows([name, answer.label, f"{answer.probability:.6f}"] for name, answer in pairs)
        return out.getvalue().rstrip("\n")
    width, labels = max(map(len, names)), max(len(answer.label) for answer in answers)
    return "\n".join(
        f"{name:{width}}  {answer.label:{labels}}  {100 * answer.probability:5.1f} %  "
        + ", ".join(f"{label} {100 * p:.1f} %" for label, p in answer.alternatives[:MOST_ALTERNATIVES])
        for name, answer in pairs
    )


if __name__ == "__main__":
    sys.exit(main())
