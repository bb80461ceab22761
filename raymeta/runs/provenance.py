"""What a run or a measurement was made with: versions, devices, the commit, for a measurement the command too.

Nothing heavy is imported to find out.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("raymeta", "torch", "torchvision", "numpy", "ray")
"""Those that a run tells of."""
MEASURED_PACKAGES = ("raymeta", "torch", "numpy", "ray")
"""Those that a measurement tells of, unless it names others."""
_TIMEOUT_S = 10.0


def environment() -> dict[str, Any]:
    """Everything `env.json` holds; a value that cannot be found out is null.

    Devices come from nvidia-smi, so that asking does not take GPU memory in the driver's process.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: package_version(package) for package in PACKAGES},
        "cpu_count": os.cpu_count(),
        "cuda_devices": cuda_devices(),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "git_commit": git_commit(Path.cwd()),
        "directory": str(Path.cwd()),
    }


def package_version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cuda_devices() -> list[str]:
    """Names, memory and driver of this machine's GPUs, one text each."""
    listing = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return [line.strip() for line in (listing or "").splitlines() if line.strip()]


def git_commit(directory: Path) -> str | None:
    """The commit checked out in `directory`, with `-dirty` after it if tracked files differ; None outside of git."""
    return _output("git", "-C", str(directory), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def source_commit() -> tuple[str | None, bool]:
    """The commit of the checkout that this package runs from, and whether its files differ from it.

    (None, False) for an installed package, also where the environment lies inside another repository.
    """
    git = ("git", "-C", str(Path(__file__).parents[1]))
    if _output(*git, "ls-files", "__init__.py") is None:
        return None, False
    changes = _output(*git, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return _output(*git, "rev-parse", "HEAD"), changes is not None


def _output(*command: str) -> str | None:
    """What `command` prints; None if it is not installed, fails, or takes too long: the run matters more."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def provenance(command: str, packages: Iterable[str] = MEASURED_PACKAGES) -> dict[str, Any]:
    """{command, date, commit, changed_since_commit, hardware, versions}; the commit is null outside of a checkout."""
    commit, changed = source_commit()
    found = {package: package_version(package) for package in packages}
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "changed_since_commit": changed,
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "gpus": cuda_devices(),
        },
        "versions": {"python": platform.python_version()} | {name: v for name, v in found.items() if v is not None},
    }


def _cpu() -> str:
    """The model of the processor as Linux tells it, else as Python does."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    return lines[0].partition(":")[2].strip() if lines else platform.processor()
