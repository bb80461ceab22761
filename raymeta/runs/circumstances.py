"""What a measurement is written with, so that its numbers can be judged: command, commit, hardware, versions, date."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raymeta.runs.environment import cuda_devices, package_version, source_commit

PACKAGES = ("raymeta", "torch", "numpy", "ray")


def circumstances(command: str, packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
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
