"""Adapt a trained model to your own classes: `python -m raymeta.adapt MODEL --support DIR --out ADAPTED`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from raymeta.system.command_line import Parser, add_verbose, dashed, run_command, say
from raymeta.system.quick_torch import import_torch

if TYPE_CHECKING:
    from raymeta.use.adapted import Adapted

MOST_SHOWN = 5
"""Doubtful examples, and confusions, that are printed."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
    return run_command("adapt", lambda: _adapt(arguments), verbose=arguments.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raymeta adapt",
        description="Adapt a trained model to your own classes, and say how far to trust it. The model is not changed.",
        epilog="example: raymeta adapt latest --support photos --out my-classes, where photos/CLASS/* are a few "
        "pictures of each class; then raymeta predict my-classes new/*.jpg",
    )
    parser.add_argument("model", metavar="MODEL", help="a run (folder, id, URI or `latest`), one of its checkpoints, "
                        "or an exported folder")  # fmt: skip
    parser.add_argument("--support", type=Path, required=True, metavar="DIR|FILE", help="a folder with one sub-folder "
                        "per class, or a CSV, TSV or JSON-lines file with a column of labels")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the adapted model")
    parser.add_argument("--label-column", metavar="NAME", help="column of the labels [label, class, y or target]")
    parser.add_argument("--output", default="results", help="folder or URI of runs given by id [results]")
    parser.add_argument("--trust", action="store_true", help="import the code that the model names")
    add_verbose(parser)
    return parser


def _adapt(arguments: argparse.Namespace) -> int:
    import_torch()
    from raymeta.use.adapted import adapt_to_source
    from raymeta.use.folder import require_free, write_adapted
    from raymeta.use.opening import open_model

    require_free(arguments.out)
    model = open_model(arguments.model, output=arguments.output, trust=arguments.trust, measured=True)
    adapted = adapt_to_source(model, arguments.support, label_column=arguments.label_column)
    write_adapted(adapted, arguments.out)
    say("\n".join([*report_lines(adapted), "", f"predict: raymeta predict {arguments.out} FILES"]))
    return 0


def report_lines(adapted: Adapted) -> list[str]:
    """How far to trust an adapted model, for people."""
    return [*_facts(adapted), *_accuracy(adapted), *_calibration(adapted), *_doubts(adapted), *_unlike(adapted)]


def _facts(adapted: Adapted) -> list[str]:
    from raymeta.use.card import batch_norm_text, metric_text

    model, way = adapted.model, adapted.way
    counts = adapted.support.y.bincount().tolist()
    each = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    lines = [f"{model.name}: {way} classes, {each} example{'s' * (max(counts) > 1)} of each"]
    if score := metric_text(model.about):
        lines.append(f"  trained on {model.about.get('tasks')}, where it has {score}")
    if model.batch_norm != "none":
        lines.append(f"  batch norm: {batch_norm_text(model)}")
    if adapted.reader is not None and (note := adapted.reader.note):
        lines.append(f"  {note}")
    trained = model.tasks.size("train").way
    if way > trained:
        lines.append(f"  it was trained with {trained} classes: {way} are harder")
    return lines


def _accuracy(adapted: Adapted) -> list[str]:
    found, chance = adapted.left_out, f"guessing gives {100 / adapted.way:.1f} %"
    if found is None:
        return [f"  no class has a second example, so nothing can be left out to try it: accuracy unknown; {chance}"]
    text = (
        f"  leave-one-out accuracy {100 * found.accuracy:.1f} %, 95 % interval {100 * found.low:.1f} to "
        f"{100 * found.high:.1f} % over {found.tried} examples; {chance}"
    )
    lines = [text]
    if found.skipped:
        lines.append(f"  not tried, as they are the only examples of their classes: {found.skipped}")
    if found.low <= 1 / adapted.way:
        lines.append("  warning: that is not above guessing: give more examples, or a model trained on such data")
    for label, answer, times in found.confusions[:MOST_SHOWN]:
        lines.append(f"    {label} was taken for {answer} {times} time{'s' * (times > 1)}")
    return lines


def _calibration(adapted: Adapted) -> list[str]:
    found = adapted.calibration
    if found is None:
        return ["  probabilities are not calibrated: fewer than 20 examples can be left out to try it"]
    return [
        f"  probabilities calibrated with temperature {found.temperature:.2g}: negative log likelihood "
        f"{found.before:.3f} before and {found.after:.3f} after; mean confidence {100 * found.confidence_before:.0f} % "
        f"before and {100 * found.confidence_after:.0f} % after"
    ]


def _doubts(adapted: Adapted) -> list[str]:
    lines = [
        f"    {adapted.names[d.place]}: labelled {adapted.classes[d.label]}, looks like {adapted.classes[d.rather]} "
        f"({100 * d.probability:.0f} %)"
        for d in adapted.doubts[:MOST_SHOWN]
    ]
    return ["  perhaps mislabelled:", *lines] if lines else []


def _unlike(adapted: Adapted) -> list[str]:
    seen = adapted.model.seen
    if seen is None:
        return ["  whether the examples look like its training data is not known"]
    told = [(name, text) for name, text in zip(adapted.names, seen.unlike(adapted.support.x), strict=True) if text]
    if not told:
        return []
    head = f"  warning: {len(told)} of {len(adapted.names)} examples look unlike the training data:"
    return [head, *(f"    {name}: {text}" for name, text in told[:MOST_SHOWN])]


if __name__ == "__main__":
    sys.exit(main())
