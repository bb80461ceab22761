"""Check this machine for training: `python -m raymeta.doctor`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from raymeta.system.command_line import Parser, add_verbose, run_command
from raymeta.system.signals import raise_if_interrupt


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    good: bool
    """whether nothing stands in the way of training"""
    text: str
    found: bool = True
    """False of something that is not there and need not be"""

    @property
    def mark(self) -> str:
        return "BAD" if not self.good else "ok" if self.found else "-"


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 where nothing stands in the way of training, else 3."""
    parser = Parser(prog="raymeta doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder that runs go to [results]")
    add_verbose(parser)
    arguments = parser.parse_args(argv)
    return run_command("doctor", lambda: _report(arguments), verbose=arguments.verbose)


def _report(arguments: argparse.Namespace) -> int:
    findings = list(examine(arguments.output))
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{finding.mark:4} {finding.name:{width}}  {finding.text}")
    return 0 if all(finding.good for finding in findings) else 3


def examine(output: Path) -> Iterator[Finding]:
    """Everything that training needs, one finding each."""
    checks: tuple[Callable[[Path], Finding], ...] = (
        _python,
        _torch,
        _compiler,
        _torchvision,
        _ray,
        _memory,
        _disk,
        _data,
    )
    for check in checks:
        yield check(output)


def _python(output: Path) -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("python", good, sys.version.split()[0] + ("" if good else ": raymeta needs 3.11 or newer"))


def _torch(output: Path) -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch", False, f"cannot be imported ({error}): pip install torch")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("torch", True, f"{torch.__version__}, {', '.join(gpus) if gpus else 'no GPU: trains on the CPU'}")


def _compiler(output: Path) -> Finding:
    try:
        from raymeta.engine.worker.compile_rule import compile_a_sum
    except ImportError:
        return Finding("compiler", True, "not looked for without torch", False)
    problem = compile_a_sum()
    if problem is not None:
        return Finding("compiler", True, f"none that works ({problem}): long runs are not compiled", False)
    return Finding("compiler", True, "a small computation was compiled: long runs are compiled, see `compile`")


def _torchvision(output: Path) -> Finding:
    if find_spec("torchvision") is None:
        return Finding(
            "torchvision", True, "not installed: only downloads and backbones need it (raymeta[vision])", False
        )
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        raise_if_interrupt(error)
        return Finding("torchvision", False, f"does not fit torch ({error}): install both from the same source")
    return Finding("torchvision", True, torchvision.__version__)


def _ray(output: Path) -> Finding:
    try:
        return Finding("ray", True, f"{version('ray')}, address {os.environ.get('RAY_ADDRESS', 'none set')}")
    except PackageNotFoundError:
        return Finding("ray", True, "not installed: --workers 0 works; for workers pip install 'raymeta[ray]'", False)


def _memory(output: Path) -> Finding:
    if not Path("/dev/shm").is_dir():
        return Finding("shared memory", True, "no /dev/shm here: Ray uses files")
    free = shutil.disk_usage("/dev/shm").free / 2**30
    hint = "" if free >= 1 else ": Ray's object store wants at least 1 GiB (docker: --shm-size=4g)"
    return Finding("shared memory", free >= 1, f"{free:.1f} GiB free in /dev/shm{hint}")


def _disk(output: Path) -> Finding:
    folder = next(path for path in (output, *output.resolve().parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    writable = os.access(folder, os.W_OK)
    text = f"{free:.1f} GiB free for {output}" + ("" if writable else ", but it cannot be written: use --output")
    return Finding("disk", writable and free >= 0.5, text)


def _data(output: Path) -> Finding:
    from raymeta.errors import DataError
    from raymeta.tasks.images.omniglot.task_set import Omniglot

    try:
        tasks = Omniglot()
        tasks.check()
    except DataError as error:
        return Finding("omniglot", True, f"not there, and needed for its own presets only: {error}", False)
    return Finding("omniglot", True, f"{tasks.num_classes('train')} training classes")


if __name__ == "__main__":
    sys.exit(main())
