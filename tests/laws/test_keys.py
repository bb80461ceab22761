"""Keys are golden and collision-free; shards are cut by configuration alone; sums are folded in one order."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from raymeta.engine.fold import Fold, Total
from raymeta.keys import SPLITS, STREAMS, Block, TaskKey, plan, uniforms


def test_keys_are_golden() -> None:
    """Raw words of the generator: a change here changes every run ever made."""
    words = TaskKey(7, "val", 3, 11).generator().bit_generator.random_raw(4)
    expected = np.random.Philox(
        key=np.array([7, 0], dtype=np.uint64), counter=np.array([0, 11, 3, 1], dtype=np.uint64)
    ).random_raw(4)
    assert words.tolist() == expected.tolist() == GOLDEN


GOLDEN = [3383787246268166011, 11064670155480057804, 16924167534140331827, 16690268242802875308]


def test_uniforms_of_many_keys_are_those_of_each() -> None:
    """Whatever was drawn before, and for sizes that leave a started block of the counter."""
    keys = [TaskKey(s, split, step, i) for s in (0, 2**63 - 1) for split in SPLITS for step in (0, 7) for i in (0, 9)]
    for n in (1, 4, 7, 22):
        assert uniforms(keys, n).tolist() == [key.generator().random(n).tolist() for key in keys]


def test_keys_do_not_collide() -> None:
    values = itertools.product((0, 1), SPLITS, (0, 1, 2, 1000), (0, 1, 2, 1000), STREAMS)
    first = [
        int(TaskKey(seed, split, step, index).generator(stream).bit_generator.random_raw(1)[0])
        for seed, split, step, index, stream in values
    ]
    assert len(set(first)) == len(first)


def test_streams_of_neighbours_do_not_overlap() -> None:
    """A long draw from one task never meets the draws of the next: the index has a counter word of its own."""
    drawn = [set(TaskKey(0, "train", 0, i).generator().bit_generator.random_raw(4096).tolist()) for i in range(3)]
    assert not drawn[0] & drawn[1]
    assert not drawn[1] & drawn[2]


@pytest.mark.parametrize(("num_tasks", "shard_size"), [(1, 1), (7, 3), (8, 4), (25, 13)])
def test_shards_cover_every_task_once(num_tasks: int, shard_size: int) -> None:
    shards = plan(seed=0, split="train", step=5, num_tasks=num_tasks, shard_size=shard_size)
    keys = [key for shard in shards for key in shard.keys()]  # noqa: SIM118  a Shard's keys are tasks
    for shard in shards:
        every = list(shard.keys())
        assert [shard.keys()[place] for place in range(-len(every), len(every))] == 2 * every
        assert (len(shard.keys()), shard.keys()[1:]) == (len(every), every[1:])
    assert keys == [TaskKey(0, "train", 5, i) for i in range(num_tasks)]
    assert all(shard.num_tasks == shard_size for shard in shards[:-1])


def leaf(value: float) -> Total:
    return Total(1, np.array([value], dtype=np.float64), {"loss": value}, ())


def reference(values: list[float]) -> float:
    """The tree of the design, by recursion: left is the largest power of two below n."""
    if len(values) == 1:
        return values[0]
    cut = 1 << (len(values) - 1).bit_length() - 1
    return reference(values[:cut]) + reference(values[cut:])


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13, 32])
def test_fold_is_the_fixed_tree_in_any_order_of_arrival(n: int) -> None:
    rng = random.Random(n)
    values = [rng.uniform(-1, 1) * 10 ** rng.randint(-8, 8) for _ in range(n)]
    for _ in range(5):
        order = list(range(n))
        rng.shuffle(order)
        fold = Fold(n)
        for i in order:
            fold.add(Block(0, i), leaf(values[i]))
        total = fold.total()
        assert total.vector[0] == reference(values) == total.metrics["loss"]
        assert total.num_tasks == n


def partial(values: list[float], block: Block) -> Total:
    """The sum of a block's leaves as a host folds them, knowing only these."""
    positions = block.positions(len(values))
    fold = Fold(len(positions))
    for i, position in enumerate(positions):
        fold.add(Block(0, i), leaf(values[position]))
    return fold.total()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13, 32])
def test_blocks_folded_elsewhere_have_the_same_bits(n: int) -> None:
    """Any division of the tree into whole blocks, the last one cut off by the end, in any order of arrival."""
    rng = random.Random(n)
    values = [rng.uniform(-1, 1) * 10 ** rng.randint(-8, 8) for _ in range(n)]
    for _ in range(10):
        blocks, undivided = [], [Block((n - 1).bit_length(), 0)]
        while undivided:
            block = undivided.pop()
            if block.level == 0 or rng.random() < 0.4:
                blocks.append(block)
            else:
                undivided += [half for half in block.halves() if half.positions(n)]
        rng.shuffle(blocks)
        fold = Fold(n)
        for block in blocks:
            fold.add(block, partial(values, block))
        assert fold.total().vector[0] == reference(values)


def test_fold_holds_few_nodes_when_leaves_come_in_order() -> None:
    fold = Fold(1024)
    for i in range(1024):
        fold.add(Block(0, i), leaf(1.0))
        assert len(fold.waiting) <= 11


def test_an_incomplete_fold_has_no_total() -> None:
    fold = Fold(3)
    fold.add(Block(0, 2), leaf(1.0))
    with pytest.raises(ValueError, match="1 of 3"):
        fold.total()
