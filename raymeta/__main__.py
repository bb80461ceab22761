"""`raymeta COMMAND` is `python -m raymeta.COMMAND`."""

from __future__ import annotations

import sys
from importlib import import_module

from raymeta import __version__
from raymeta.errors import shortened
from raymeta.system.signals import unwrapped_interrupts
from raymeta.system.text import did_you_mean, nearest

COMMANDS = {
    "train": "meta-train a model, in this process or on Ray workers",
    "tune": "search learning rates and architectures: many runs side by side on Ray",
    "evaluate": "score a run on held-out tasks; compare runs on the same tasks",
    "adapt": "adapt a trained model to your own classes, from a few examples of each",
    "predict": "classify files with an adapted model, or with one that was trained on its classes",
    "features": "what a model makes of files: embeddings, neighbours, a linear probe",
    "export": "write a trained model for others, or an adapted one for use without raymeta",
    "serve": "few-shot classification over HTTP on Ray Serve, with a page to try it",
    "runs": "list, show, compare and export runs (ls, show, compare, export)",
    "dashboard": "show the runs of a folder in a browser, live",
    "report": "write runs or a sweep as one HTML file that opens offline",
    "config": "check, explain and compare configurations",
    "presets": "list the configurations that come with raymeta",
    "bench": "measure meta-gradients: our paths, other libraries and the floor in one run",
    "doctor": "check this machine: torch, GPU, Ray, disk, data",
    "omniglot": "download Omniglot, or pack its images into one file",
    "transfer": "pre-train on CIFAR-10, fine-tune on CIFAR-100 at several label fractions",
}
_PACKAGES = ("runs", "config", "serve", "dashboard", "bench", "presets", "transfer")


def main(argv: list[str] | None = None) -> int:
    """Dispatch to a command's module; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"raymeta {__version__}")
        return 0
    name = argv[0]
    if name not in COMMANDS:
        hint = did_you_mean(nearest(name, COMMANDS), before=": ") or f"; commands are {', '.join(COMMANDS)}"
        print(shortened(f"raymeta: there is no command {name!r}{hint}"), file=sys.stderr)
        return 2
    try:
        with unwrapped_interrupts():
            module = import_module(module_of(name))
    except KeyboardInterrupt:
        print(f"raymeta {name}: interrupted", file=sys.stderr)
        return 130
    code: int = module.main(argv[1:])
    return code


def module_of(name: str) -> str:
    """The module whose `main` is the command `name`."""
    return f"raymeta.{name}" + (".__main__" if name in _PACKAGES else "")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"raymeta {__version__}: meta-learning on Ray",
            "",
            "usage: raymeta COMMAND [OPTIONS]     (the same as python -m raymeta.COMMAND)",
            "",
            *lines,
            "",
            "`raymeta COMMAND --help` tells more. First steps: raymeta train --workers 2",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
