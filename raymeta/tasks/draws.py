"""Choices without repetition, from the uniform numbers of a task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def distinct(u: NDArray[np.float64], n: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row k different numbers below `n` [rows] in random order, from 2k uniform numbers `u` [rows, 2k].

    Floyd's sampling (Bentley and Floyd, Communications of the ACM 30:9, 1987) finds the set with k draws however large
    `n` is; the other k numbers shuffle it. Needs k <= n.
    """
    k = u.shape[1] // 2
    highest = n[:, None] - k + np.arange(k)  # draw i is from 0..highest[i]
    picks = (u[:, :k] * (highest + 1)).astype(np.int64)
    ordered = np.sort(picks, axis=1)
    for row in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1)):
        seen: set[int] = set()
        for i, pick in enumerate(picks[row].tolist()):
            if pick in seen:
                pick = picks[row, i] = int(highest[row, i])
            seen.add(pick)
    order = u[:, k:].argsort(axis=1, kind="stable")
    shuffled: NDArray[np.int64] = picks[np.arange(len(picks))[:, None], order]
    return shuffled
