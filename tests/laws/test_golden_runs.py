"""Commits keep the bits of every preset: after 20 steps they are those that were recorded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import golden_runs
import pytest

QUICK = {"sinusoid-maml"}
PRESETS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in golden_runs.PRESETS]


def require_recorded(preset: str, found: dict[str, Any]) -> None:
    """Equal bits on a machine that is known; on another the values of one that is, to 1e-5."""
    known, here = golden_runs.recorded(), golden_runs.machine()
    if here in known:
        assert found["params_sha256"] == known[here][preset]["params_sha256"], f"{preset} has other bits than before"
        return
    other = next(iter(known))
    warnings.warn(f"no bits are recorded for {here}: values are compared with those of {other}", stacklevel=2)
    for name, values in known[other][preset]["values"].items():
        assert found["values"][name] == pytest.approx(values, rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_bits_of_before(preset: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = str(request.getfixturevalue("omniglot_root")) if preset.startswith("omniglot") else None
    require_recorded(preset, golden_runs.outcome(preset, tmp_path, root))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["sinusoid-maml", "glyphs-5w1s-maml"])
def test_two_workers_have_them_too(preset: str, tmp_path: Path, local_ray: Any) -> None:
    require_recorded(preset, golden_runs.outcome(preset, tmp_path, None, workers=2))
