"""Lake's benchmark on Omniglot: 20 runs of 20-way one-shot classification within an alphabet, and its baseline.

Each run shows 20 characters drawn by one person and asks for the same 20 drawn by another (Lake, Salakhutdinov,
Tenenbaum, Science 350:1332, 2015). Only the background alphabets may be used to learn from.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raymeta.errors import DataError
from raymeta.system.reading import open_regular
from raymeta.tasks.images.files import BROKEN_ARCHIVE

NUM_RUNS = 20
_ROWS_AT_ONCE = 64

Ink = NDArray[np.bool_]  # [height, width]
Distance = Callable[[Ink, Ink], float]


class LakeRun(NamedTuple):
    """One run: `train[answer[i]]` shows the character of `test[i]`."""

    train: Ink  # [20, 105, 105], True = ink
    test: Ink  # [20, 105, 105]
    answer: NDArray[np.int64]  # [20]


def read_lake_runs(archive: Path) -> list[LakeRun]:
    """The 20 runs in Lake's `all_runs.zip`; raises `DataError` naming the file where it cannot be read."""
    try:
        with open_regular(archive) as opened, zipfile.ZipFile(opened) as file:
            return [_read_run(file, f"run{number:02d}") for number in range(1, NUM_RUNS + 1)]
    except BROKEN_ARCHIVE as error:
        raise DataError(
            f"{archive} is not Lake's archive of runs: {error}. Get all_runs.zip from "
            "github.com/brendenlake/omniglot (folder python/one-shot-classification)"
        ) from error


def _read_run(file: zipfile.ZipFile, run: str) -> LakeRun:
    pairs = [line.split() for line in file.read(f"{run}/class_labels.txt").decode().splitlines()]
    tests, matches = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    trains = sorted(matches)

    def ink(names: list[str]) -> Ink:
        return np.stack([np.asarray(Image.open(io.BytesIO(file.read(name))).convert("L")) < 128 for name in names])

    return LakeRun(ink(trains), ink(tests), np.array([trains.index(name) for name in matches]))


def modified_hausdorff(a: Ink, b: Ink) -> float:
    """Modified Hausdorff distance of the ink of two drawings, each centred on its mean: Dubuisson and Jain, 1994.

    The larger of the two mean distances from a point of one to the nearest point of the other, in pixels.
    """
    a_N2, b_M2 = (points - points.mean(axis=0) for points in (np.argwhere(a), np.argwhere(b)))
    # |a - b|^2 = |a|^2 - 2 a.b + |b|^2 as one matrix product, a few rows at a time so that they stay in the cache.
    left_N4 = np.column_stack([a_N2, (a_N2 * a_N2).sum(axis=1), np.ones(len(a_N2))])
    right_4M = np.column_stack([-2 * b_M2, np.ones(len(b_M2)), (b_M2 * b_M2).sum(axis=1)]).T
    from_a = []
    from_b = np.full(len(b_M2), np.inf)
    for start in range(0, len(left_N4), _ROWS_AT_ONCE):
        square = left_N4[start : start + _ROWS_AT_ONCE] @ right_4M
        from_a.append(square.min(axis=1))
        np.minimum(from_b, square.min(axis=0), out=from_b)
    return max(_mean_root(np.concatenate(from_a)), _mean_root(from_b))


def _mean_root(square: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.maximum(square, 0)).mean())  # rounding can leave a tiny negative


def errors_of(runs: list[LakeRun], distance: Distance) -> list[float]:
    """Percent of wrong answers in each run when the nearest training drawing is the answer."""
    return [100 * float((_nearest(run, distance) != run.answer).mean()) for run in runs]


def _nearest(run: LakeRun, distance: Distance) -> NDArray[np.int64]:
    return np.array([np.argmin([distance(test, train) for train in run.train]) for test in run.test])
