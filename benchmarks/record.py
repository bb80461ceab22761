"""What every benchmark writes: its numbers with command, commit, hardware, versions and date."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raymeta.files import write_json
from raymeta.runs.environment import package_version

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


def record(name: str, content: dict[str, Any]) -> Path:
    """Write `results/benchmarks/NAME.json`; returns its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(path, {**_circumstances(), **content})
    return path


def _circumstances() -> dict[str, Any]:
    script = Path(sys.argv[0]).name
    arguments = [a for a in sys.argv[1:] if not a.startswith(("--root", "--output"))]
    arguments = [a for i, a in enumerate(arguments) if not a.startswith("/")]
    return {
        "command": shlex.join(["python", f"benchmarks/{script}", *arguments]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "raymeta")),
        "hardware": {"cpu": _cpu(), "cores": os.cpu_count(), "machine": platform.machine()},
        "versions": {
            "python": platform.python_version(),
            **{p: package_version(p) for p in ("raymeta", "torch", "numpy", "ray")},
        },
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    return lines[0].partition(":")[2].strip() if lines else platform.processor()
