"""Glyphs: the same bytes everywhere, classes that do not depend on the counts, and the intended difficulty."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from raymeta.errors import DataError
from raymeta.keys import SPLITS, Split, TaskKey
from raymeta.tasks.episodes import Episode
from raymeta.tasks.images.class_images import Splits
from raymeta.tasks.images.glyphs import Glyphs

SMALL: dict[str, Any] = {"train_classes": 6, "val_classes": 5, "test_classes": 5, "drawers": 6}
GOLDEN = "bc852525295fb28c14846b65836c3337c7d215e60189b5bd5ec8e602fa64a339"


def digest(splits: Splits) -> str:
    return hashlib.sha256(b"".join(splits[split].images.tobytes() for split in SPLITS)).hexdigest()


@pytest.fixture(scope="module")
def default() -> Glyphs:
    return Glyphs()


@pytest.fixture(scope="module")
def episodes(default: Glyphs) -> Episode:
    """300 test episodes of the default size."""
    return default.episodes([TaskKey(7, "test", 3, index) for index in range(300)])


def test_two_loads_are_equal_bit_for_bit() -> None:
    first, second = Glyphs(**SMALL).load(), Glyphs(**SMALL).load()
    for split in SPLITS:
        np.testing.assert_array_equal(first[split].images, second[split].images)
        assert first[split].names == second[split].names


def test_the_images_never_change() -> None:
    """Published numbers on glyphs hold for these bytes, on any processor and with any numpy."""
    assert digest(Glyphs(**SMALL).load()) == GOLDEN


def test_global_generators_are_not_touched() -> None:
    before = str(np.random.get_state()), torch.get_rng_state()
    Glyphs(**SMALL).load()
    assert str(np.random.get_state()) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_another_seed_gives_other_glyphs() -> None:
    first, second = (Glyphs(**SMALL, glyph_seed=seed).load()["train"].images for seed in (0, 1))
    assert (first != second).any(axis=(1, 2, 3)).all()


def test_the_largest_seed_is_accepted() -> None:
    assert len(Glyphs(**SMALL, glyph_seed=2**64 - 1).load()["val"].images) == 30


@pytest.mark.parametrize("split", SPLITS)
def test_a_class_does_not_depend_on_how_many_there_are(split: Split) -> None:
    few = Glyphs(**SMALL).load()[split]
    more = {"train_classes": 9, "val_classes": 8, "test_classes": 7, "drawers": 9}
    many = Glyphs(**more).load()[split]
    num_classes, drawers = len(few.names), SMALL["drawers"]
    classes = many.images.reshape(len(many.names), 9, 1, 28, 28)
    np.testing.assert_array_equal(few.images, classes[:num_classes, :drawers].reshape(few.images.shape))
    assert few.names == many.names[:num_classes]


def test_shapes_and_types(default: Glyphs) -> None:
    assert default.input_shape == (1, 28, 28)
    assert [default.num_classes(split) for split in SPLITS] == [400, 60, 120]
    for split in SPLITS:
        pool = default.splits[split]
        assert pool.images.dtype == np.uint8
        assert pool.images.flags.c_contiguous
        assert (pool.counts == 20).all()
        assert pool.starts[-1] == len(pool.images)


def test_no_image_occurs_twice_in_any_class_or_split(default: Glyphs) -> None:
    images = [image.tobytes() for split in SPLITS for image in default.splits[split].images]
    assert len(set(images)) == len(images)


def test_ink_is_a_stroke_on_a_clean_sheet(default: Glyphs) -> None:
    for split in SPLITS:
        images = default.splits[split].images[:, 0]
        ink = (images > 127).mean(axis=(1, 2))
        assert 0.1 < ink.mean() < 0.17
        assert ink.min() > 0.02
        assert ink.max() < 0.35
        assert (images.max(axis=(1, 2)) >= 240).all()
        assert not images[:, [0, -1]].any()
        assert not images[:, :, [0, -1]].any()


def test_strokes_are_smooth_edged(default: Glyphs) -> None:
    """Anti-aliasing leaves grey pixels, but fewer than ink and paper."""
    images = default.splits["test"].images
    grey = ((images > 0) & (images < 255)).mean()
    assert 0.05 < grey < 0.2


def test_a_hand_is_the_same_in_every_class(default: Glyphs) -> None:
    """Drawers keep their pen: the mean ink of a drawer over one half of the classes predicts the other half."""
    pool = default.splits["train"]
    ink = (pool.images / 255).mean(axis=(1, 2, 3)).reshape(len(pool.names), -1)
    halves = ink[::2].mean(axis=0), ink[1::2].mean(axis=0)
    assert np.corrcoef(*halves)[0, 1] > 0.95


def test_raw_pixels_are_a_poor_guide(episodes: Episode) -> None:
    """The nearest support image, by squared distance, is right more often than chance and far from always."""
    support, query = episodes.support.x.flatten(2), episodes.query.x.flatten(2)
    correct = []
    for s, q, y, label in zip(support, query, episodes.support.y, episodes.query.y, strict=True):
        nearest = (q[:, None] - s).square().sum(-1).argmin(-1)
        correct.append((y[nearest] == label).float().mean())
    accuracy = float(torch.stack(correct).mean())
    assert 0.4 < accuracy < 0.6


def test_support_and_query_are_disjoint(episodes: Episode) -> None:
    for i in range(50):
        both = torch.cat([episodes.support.x[i], episodes.query.x[i]])
        assert len({image.numpy().tobytes() for image in both}) == 5 * (1 + 5)


def test_a_class_has_any_label(episodes: Episode) -> None:
    """In 300 episodes every class of the split appears, under more than four of the five labels on average."""
    assert episodes.support.class_id is not None
    labels: dict[int, set[int]] = {}
    for class_id, y in zip(
        episodes.support.class_id.ravel().tolist(), episodes.support.y.ravel().tolist(), strict=True
    ):
        labels.setdefault(class_id, set()).add(y)
    assert len(labels) == 120
    assert np.mean([len(seen) for seen in labels.values()]) > 4


def test_class_ids_name_the_images(default: Glyphs, episodes: Episode) -> None:
    assert episodes.query.class_id is not None
    pool = default.splits["test"]
    for image, class_id in zip(episodes.query.x[0], episodes.query.class_id[0].tolist(), strict=True):
        own = pool.images[pool.starts[class_id] : pool.starts[class_id + 1]]
        assert (own == (image * 255).round().byte().numpy()).all(axis=(1, 2, 3)).sum() == 1


def test_a_batch_of_episodes_is_its_episodes(default: Glyphs) -> None:
    keys = [TaskKey(1, "train", 5, index) for index in range(4)]
    batch = default.episodes(keys)
    for i, key in enumerate(keys):
        alone = default.episode(key)
        for together, single in zip(batch, alone, strict=True):
            for a, b in zip(together, single, strict=True):
                assert a is not None
                assert b is not None
                assert torch.equal(a[i], b)


def test_too_few_drawers_are_named_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Glyphs) -> Splits:
        raise AssertionError("drawn")

    monkeypatch.setattr(Glyphs, "load", load)
    with pytest.raises(DataError, match=r"raise tasks\.drawers to 21 "):
        Glyphs(shot=1, query_shot=5, train_query_shot=20, glyph_seed=99).check()


def test_too_few_classes_are_named() -> None:
    with pytest.raises(DataError, match=r"the val split has 5 classes, but 6-way"):
        Glyphs(**SMALL, way=6).check()


def test_a_possible_task_set_passes_its_check() -> None:
    Glyphs(**SMALL).check()
