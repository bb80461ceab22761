"""Get Omniglot.

raymeta omniglot download FOLDER    # fetch with torchvision, then pack
raymeta omniglot pack TREE OUT.npz  # PNG files to one file that loads in seconds
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from raymeta.system.command_line import Parser, add_verbose, run_command
from raymeta.tasks.data_folder import data_folder
from raymeta.tasks.images.omniglot import files as omniglot_files


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(prog="raymeta omniglot", description="Get Omniglot.")
    commands = parser.add_subparsers(dest="command", required=True)
    download = commands.add_parser("download", help="fetch Omniglot with torchvision and pack it")
    download.add_argument("root", type=Path, nargs="?", default=data_folder(None, "omniglot"))
    pack = commands.add_parser("pack", help="pack a tree of PNG files into one file")
    pack.add_argument("tree", type=Path, help="folder with images_background and images_evaluation")
    pack.add_argument("out", type=Path, help=f"file to write, called {omniglot_files.PACKED} to be found later")
    add_verbose(download, pack)
    arguments = parser.parse_args(argv)
    return run_command("omniglot", lambda: _get(arguments), verbose=arguments.verbose)


def _get(arguments: argparse.Namespace) -> int:
    if arguments.command == "pack":
        out = arguments.out
        omniglot_files.pack(arguments.tree, out)
    else:
        out = omniglot_files.download(arguments.root)
    print(f"wrote {out}; use it with --tasks omniglot --tasks.root {out.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
