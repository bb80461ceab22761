"""Glyphs: the same bytes everywhere, classes that do not depend on the counts, and the intended difficulty."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from raymeta.errors import DataError
from raymeta.keys import SPLITS, TaskKey
from raymeta.tasks.base import Episode
from raymeta.tasks.glyphs import Glyphs
from raymeta.tasks.image_classes import Splits

SMALL = {"train_classes": 6, "val_classes": 5, "test_classes": 5, "drawers": 6}
GOLDEN = "?"


def digest(splits: Splits) -> str:
    return hashlib.sha256(b"".join(splits[split].images.tobytes() for split in SPLITS)).hexdigest()


def keys(num: int) -> list[TaskKey]:
    return [TaskKey(7, "test", 3, index) for index in range(num)]


@pytest.fixture(scope="module")
def episodes() -> Episode:
    """300 test episodes of the default task set."""
    return Glyphs().episodes(keys(300))


def test_the_bytes_never_change() -> None:
    """A change here makes every published number on glyphs incomparable: change it only on purpose."""
    assert digest(Glyphs(**SMALL).load()) == GOLDEN


def test_the_bytes_do_not_depend_on_the_processor() -> None:
    """A process whose numpy may use no vector instructions beyond its baseline draws the same."""
    program = (
        "import hashlib; from raymeta.keys import SPLITS; from raymeta.tasks.glyphs import Glyphs\n"
        f"splits = Glyphs(**{SMALL}).load()\n"
        "print(hashlib.sha256(b''.join(splits[s].images.tobytes() for s in SPLITS)).hexdigest())"
    )
    # numpy refuses to disable features this machine lacks or that are its baseline, so name the ones it dispatches on
    from numpy.lib.introspect import opt_func_info  # type: ignore[import-untyped,unused-ignore]

    used = {variant["current"] for name in opt_func_info().values() for variant in name.values()}
    features = " ".join(sorted(set(" ".join(used).split())))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert features
    assert done.stdout.strip() == GOLDEN
