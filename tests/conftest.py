"""Shared fixtures. Real data is found through RAYMETA_TEST_DATA; tests that need it skip where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("RAYMETA_TEST_DATA", Path(__file__).parents[1] / "../shared/data")).resolve()


@pytest.fixture(scope="session")
def omniglot_root() -> Path:
    """Folder holding the packed, complete Omniglot."""
    root = DATA / "omniglot"
    if not (root / "omniglot_bits.npz").exists():
        pytest.skip(f"no omniglot_bits.npz in {root}; set RAYMETA_TEST_DATA")
    return root
