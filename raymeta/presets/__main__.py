"""List the presets, or print one: `python -m raymeta.presets [NAME]`."""

from __future__ import annotations

import sys

from raymeta.presets.files import DEFAULT, description, preset_names, preset_path
from raymeta.system.command_line import Parser, add_verbose, run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(prog="raymeta presets", description=__doc__)
    parser.add_argument("name", nargs="?", help="preset to print")
    add_verbose(parser)
    arguments = parser.parse_args(argv)
    return run_command("presets", lambda: _show(arguments.name), verbose=arguments.verbose)


def _show(name: str | None) -> int:
    if name is not None:
        print(preset_path(name).read_text(encoding="utf-8"), end="")
        return 0
    names = preset_names()
    width = max(map(len, names))
    for preset in names:
        print(f"{preset:{width}}  {description(preset)}{' [default]' if preset == DEFAULT else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
