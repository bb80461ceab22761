"""Importing torch for a command leaves Python's search for cycles as it was."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("before", ["enable", "disable"])
def test_the_collector_is_as_it_was(before: str) -> None:
    code = (
        f"import gc, sys; gc.{before}(); was = gc.isenabled()\n"
        "from raymeta.system.quick_torch import import_torch\n"
        "assert 'torch' not in sys.modules\n"
        "import_torch()\n"
        "assert 'torch' in sys.modules and gc.isenabled() is was\n"
        "assert gc.get_freeze_count() > 50_000\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
