"""Batches drawn from a part of a training problem, by the keys of tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raymeta.keys import TaskKey, uniforms
from raymeta.tasks.classification.labelled import Ids
from raymeta.tasks.draws import distinct

_LAST_INDEX = 2**64 - 1
"""Index of the key that the pairs of a step are drawn from; no task has it, nor those below, one for each round."""


def drawn(keys: Sequence[TaskKey], pools: Sequence[Ids], sizes: Sequence[int]) -> list[Ids]:
    """Of each pool a batch [T, size] of different images for every task."""
    ends = np.cumsum([2 * size for size in sizes])
    columns = np.split(uniforms(keys, int(ends[-1])), ends[:-1], axis=1)
    return [pool[distinct(u, np.full(len(u), len(pool)))] for pool, u in zip(pools, columns, strict=True)]


def drawn_of_domains(keys: Sequence[TaskKey], pools: Sequence[Ids], domains: Ids, size: int, skipped: int) -> Ids:
    """From each of a task's `domains` [T, k] a batch of `size` different images, one after another [T, k * size].

    The first `skipped` uniform numbers of a task are for others.
    """
    num_domains = domains.shape[1]
    u = uniforms(keys, skipped + 2 * num_domains * size)[:, skipped:].reshape(-1, 2 * size)
    which = domains.ravel()
    picks = distinct(u, np.array([len(pool) for pool in pools])[which])
    rows = np.stack([pools[d][one] for d, one in zip(which.tolist(), picks, strict=True)])
    return rows.reshape(len(keys), num_domains * size)


def split_domains(keys: Sequence[TaskKey], count: int) -> Ids:
    """All domains [T, count] in an order that each task draws: those for training first."""
    return uniforms(keys, count).argsort(axis=1, kind="stable")


def paired_domains(keys: Sequence[TaskKey], count: int, num_test: int) -> Ids:
    """For each task a pair [T, 2] of a domain for training and one for test, all of one order that the step draws.

    Its tasks go through the domains for training one after another, and through those for test again and again; after
    the last one comes the next round with another order.
    """
    num_train = count - num_test
    rounds = [TaskKey(k.seed, k.split, k.step, _LAST_INDEX - k.index // num_train) for k in keys]
    order = uniforms(rounds, count).argsort(axis=1, kind="stable")
    place = np.array([key.index % num_train for key in keys])
    both = np.stack([place, num_train + place % num_test], axis=1)
    return np.take_along_axis(order, both, axis=1)
