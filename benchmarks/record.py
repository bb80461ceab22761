"""What every benchmark writes: its numbers with command, commit, hardware, versions and date."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymeta.runs.provenance import provenance
from raymeta.system.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


def record(name: str, content: dict[str, Any]) -> Path:
    """Write `results/benchmarks/NAME.json`; returns its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(path, {**provenance(_command()), **content})
    return path


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def _command() -> str:
    script = Path(sys.argv[0]).name
    arguments = [a for a in sys.argv[1:] if not a.startswith(("--root", "--output", "/"))]
    return shlex.join(["python", f"benchmarks/{script}", *arguments])
