"""Laws of episodes, on images that say who they are: pixel values are the class and the number of the image."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.keys import SPLITS, TaskKey
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode
from raymeta.tasks.images.base import ImageTaskSet, Rotations, distinct
from raymeta.tasks.images.class_images import ClassImages, Splits


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Signed(ImageTaskSet):
    """Image i of class c is [[c, i], [0, 0]]: unmoved its upper left pixel is c, and no two turns of it are equal."""

    counts: tuple[int, ...] = (2, 70, 3, 9, 4, 2)
    rotations: Rotations = "none"

    @property
    def rotation_policy(self) -> Rotations:
        return self.rotations

    def load(self) -> Splits:
        signs = [(c + 1, i + 1) for c, count in enumerate(self.counts) for i in range(count)]
        images = np.zeros((len(signs), 1, 2, 2), np.uint8)
        images[:, 0, 0] = signs
        starts = np.cumsum([0, *self.counts], dtype=np.int64)
        pool = ClassImages(images, starts, [f"class{c}" for c in range(len(self.counts))])
        return dict.fromkeys(SPLITS, pool)


def signs(x: torch.Tensor, turns: int = 0) -> list[tuple[int, int]]:
    """Class and number of images [n, 1, 2, 2] that were turned by `turns` quarters."""
    pixels = torch.rot90((x * 255).round().long(), -turns, dims=(-2, -1))
    assert not pixels[:, :, 1].any(), "the images are turned otherwise"
    return [(int(c) - 1, int(i) - 1) for c, i in pixels[:, 0, 0]]


def episode(tasks: ImageTaskSet, index: int = 0) -> Episode:
    return tasks.episode(TaskKey(3, "train", 5, index))


def test_classes_of_any_size_give_distinct_images_of_their_own() -> None:
    tasks = Signed(way=6)
    tasks.check()
    seen = set()
    for index in range(400):
        support, query = episode(tasks, index)
        pairs = signs(support.x) + signs(query.x)
        assert len(set(pairs)) == 12, "support and query are disjoint"
        assert [c for c, _ in pairs] == torch.cat([support.class_id, query.class_id]).tolist()  # type: ignore[list-item]
        assert all(i < tasks.counts[c] for c, i in pairs)
        seen.update(pairs)
    assert len(seen) == sum(tasks.counts), "every image is drawn some time"


def test_labels_follow_no_order_of_the_classes() -> None:
    orders = {tuple(episode(Signed(way=3), index).support.class_id.tolist()) for index in range(1500)}  # type: ignore[union-attr]
    assert len(orders) == 6 * 5 * 4


@pytest.mark.parametrize("rotations", ["none", "episode", "classes"])
@pytest.mark.parametrize("num_tasks", [1, 7])
def test_a_batch_is_its_episodes(rotations: Rotations, num_tasks: int) -> None:
    tasks = Signed(way=4, query_shot=1, rotations=rotations)
    keys = [TaskKey(0, "test", 0, index) for index in range(num_tasks)]
    batch = tasks.episodes(keys)
    for t, key in enumerate(keys):
        for side, whole in zip(tasks.episode(key), batch, strict=True):
            for one, many in zip(side, whole, strict=True):
                assert torch.equal(one, many[t])
    assert batch.support.x.dtype == torch.float32
    assert batch.support.y.dtype == torch.int64


def test_turned_classes_are_classes_of_their_own() -> None:
    tasks = Signed(way=5, rotations="classes")
    assert tasks.num_classes("train") == 24
    seen = set()
    for index in range(60):
        for side in episode(tasks, index):
            for x, class_id in zip(side.x, side.class_id, strict=True):  # type: ignore[arg-type]
                quarter, base = divmod(int(class_id), 6)
                assert signs(x[None], quarter)[0][0] == base
                seen.add(int(class_id))
    assert seen == set(range(24))


def test_one_turn_per_class_and_episode() -> None:
    tasks = Signed(way=4, shot=1, query_shot=1, rotations="episode")
    assert tasks.num_classes("train") == 6
    seen = set()
    for index in range(60):
        support, query = episode(tasks, index)
        for first, second, class_id in zip(support.x, query.x, support.class_id, strict=True):  # type: ignore[arg-type]
            pair = torch.stack([first, second])
            quarter = next(q for q in range(4) if not torch.rot90(pair, -q, dims=(-2, -1))[:, :, 1].any())
            assert [c for c, _ in signs(pair, quarter)] == [class_id, class_id]
            seen.add((int(class_id), quarter))
    assert len(seen) == 24, "every class is turned by every angle some time"


_PROCESS = """
import hashlib
from raymeta.keys import TaskKey
from raymeta.tasks.images.glyphs import Glyphs
support, query = Glyphs(train_classes=9, val_classes=5, test_classes=5).episode(TaskKey(2, "train", 9, 4))
print(hashlib.sha256(b"".join(t.numpy().tobytes() for t in (*support, *query))).hexdigest())
"""


def test_another_process_draws_the_same_episode() -> None:
    from raymeta.tasks.images.glyphs import Glyphs

    support, query = Glyphs(train_classes=9, val_classes=5, test_classes=5).episode(TaskKey(2, "train", 9, 4))
    here = hashlib.sha256(b"".join(t.numpy().tobytes() for t in (*support, *query) if t is not None)).hexdigest()
    done = subprocess.run([sys.executable, "-c", _PROCESS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


def test_another_seed_step_or_index_is_another_episode() -> None:
    tasks = Signed(way=6, counts=(70,) * 6, query_shot=3)
    keys = [TaskKey(0, "train", 0, 0), TaskKey(1, "train", 0, 0), TaskKey(0, "train", 1, 0), TaskKey(0, "train", 0, 1)]
    assert len({tuple(signs(tasks.episode(key).query.x)) for key in [*keys, TaskKey(0, "val", 0, 0)]}) == 5


def test_keys_of_two_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="one split"):
        Signed().episodes([TaskKey(0, "train", 0, 0), TaskKey(0, "test", 0, 0)])


def test_check_names_what_is_too_small() -> None:
    Signed(way=6, shot=1, query_shot=1).check()
    with pytest.raises(
        DataError, match=r"2 of 6 classes of the train split .*class0 \(2\), class5 \(2\)\. Lower tasks"
    ):
        Signed(shot=1, query_shot=2).check()
    with pytest.raises(DataError, match=r"has 6 classes, but 7-way .* lower tasks\.way"):
        Signed(way=7).check()
    with pytest.raises(DataError, match=r"train split has 6 classes, but 9-way .* lower tasks\.train_way"):
        Signed(way=5, train_way=9).check()
    with pytest.raises(DataError, match=r"train split .*fewer images .*Lower tasks\.train_shot or tasks\.query_shot"):
        Signed(train_shot=2).check()
    Signed(way=7, rotations="classes").check()


def test_a_check_of_a_subclass_is_asked() -> None:
    class Picky(Signed):
        def check(self) -> None:
            super().check()
            raise DataError("not today")

    for call in (Picky().check, lambda: Picky().require(("train",)), lambda: Picky().require(())):
        with pytest.raises(DataError, match="not today"):
            call()
    with pytest.raises(DataError, match="12-way"):
        Picky(way=12).require(("train",))


def test_training_without_a_query_set() -> None:
    support, query = Signed(way=3, train_shot=2, train_query_shot=0).episodes([TaskKey(0, "train", 0, 0)])
    assert support.x.shape == (1, 6, 1, 2, 2)
    assert query.x.shape == (1, 0, 1, 2, 2)


@pytest.mark.parametrize("n", [3, 5])
def test_distinct_numbers_are_uniform(n: int) -> None:
    """Every ordered choice of 3 of n is as likely as the others: a chi-square six deviations wide."""
    rows = 60_000
    u = np.random.Generator(np.random.Philox(key=1)).random((rows, 6))
    picks = distinct(u, np.full(rows, n))
    _, found = np.unique(picks, axis=0, return_counts=True)
    num_orders = n * (n - 1) * (n - 2)
    assert len(found) == num_orders
    expected = rows / num_orders
    chi_square = float(((found - expected) ** 2 / expected).sum())
    assert chi_square < num_orders - 1 + 6 * np.sqrt(2 * (num_orders - 1))


def test_distinct_numbers_of_rows_with_their_own_range() -> None:
    n = np.array([4, 10**6, 5, 7])
    u = np.random.Generator(np.random.Philox(key=2)).random((4, 8))
    u[3] = 1 - 2**-53  # the largest number that a generator gives
    picks = distinct(u, n)
    assert sorted(picks[0].tolist()) == [0, 1, 2, 3]
    assert ((picks >= 0) & (picks < n[:, None])).all()
    assert all(len(set(row)) == 4 for row in picks.tolist())
