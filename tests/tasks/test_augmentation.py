"""Training images mirrored, shifted and recoloured: laws of each change, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equal_bits import require_equal_bits
from test_images import folder

from raymeta.errors import DataError
from raymeta.keys import SPLITS, TaskKey, uniforms
from raymeta.tasks.episodes import Episode
from raymeta.tasks.images.augmentation import Colours, mirrored, recoloured, shifted
from raymeta.tasks.images.folder import Images

KEYS = [TaskKey(3, "train", step, index) for step, index in ((0, 0), (0, 1), (7, 2))]
EACH: list[dict[str, Any]] = [{"train_flip": True}, {"train_crop": 3}, {"train_colour": 0.4}]
ALL: dict[str, Any] = {"train_flip": True, "train_crop": 3, "train_colour": 0.4}
FEW = {"split_ratio": (0.4, 0.3, 0.3), "way": 2, "shot": 2, "query_shot": 2, "side": 20}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"), classes=10, size=(20, 20))


def images(photos: Path, **options: Any) -> Images:
    return Images(root=str(photos), **FEW | options)  # type: ignore[arg-type]


def some(channels: int = 3, n: int = 6) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, channels, 8, 10), dtype=np.uint8)


def equal(one: Episode, other: Episode) -> bool:
    return all(equal_tensors(a, b) for a, b in zip(one, other, strict=True))


def equal_tensors(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_colours_change_both_ways_within_the_factors(photos: Path) -> None:
    keys = [TaskKey(0, "train", 0, index) for index in range(50)]
    before, after = images(photos).episodes(keys), images(photos, train_colour=0.2).episodes(keys)
    factor = (after.support.x.mean((2, 3, 4)) / before.support.x.mean((2, 3, 4))).flatten()  # of the mean: brightness
    assert 0.8 <= factor.min() < 0.84
    assert 1.16 < factor.max() <= 1.2


def test_a_mirrored_image_is_reversed_and_mirrored_twice_it_is_as_before() -> None:
    x, which = some(), np.array([True, False, True, True, False, False])
    once = mirrored(x, which)
    assert np.array_equal(once[0, :, :, 0], x[0, :, :, -1])
    assert np.array_equal(once[~which], x[~which])
    assert np.array_equal(mirrored(once, which), x)


def test_a_shifted_image_is_a_crop_of_itself_with_a_mirrored_border() -> None:
    x, down, right = some(), np.array([0, 3, -3, 1, 7, -7]), np.array([0, -2, 5, 9, -9, 1])
    moved = shifted(x, down, right)
    assert moved.shape == x.shape
    for image, before, d, r in zip(moved, x, down, right, strict=True):
        wide = np.pad(before, ((0, 0), (7, 7), (9, 9)), mode="reflect")
        assert np.array_equal(image, wide[:, 7 - d : 15 - d, 9 - r : 19 - r])


def factors(n: int, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0) -> Colours:
    return Colours(*(np.full(n, value) for value in (brightness, contrast, saturation)))


def test_factors_of_one_leave_colours_and_each_factor_does_what_it_says() -> None:
    x = some()
    grey = (x * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdims=True)
    mean = grey.mean((2, 3), keepdims=True)
    assert np.array_equal(recoloured(x, factors(6)), x)
    for change, wanted in (
        (factors(6, brightness=0.5), x * 0.5),
        (factors(6, contrast=0.0), np.broadcast_to(mean, x.shape)),
        (factors(6, saturation=0.0), np.broadcast_to(grey, x.shape)),
        (factors(6, contrast=1.3), np.clip(mean + 1.3 * (x - mean), 0, 255)),
        (factors(6, saturation=1.5), np.clip(grey + 1.5 * (x - grey), 0, 255)),
    ):
        assert np.abs(recoloured(x, change) - wanted).max() <= 0.501


def test_the_draws_of_a_stream_are_those_of_its_generator_and_shift_no_other() -> None:
    drawn = uniforms(KEYS, 5, "augmentation")
    assert drawn.tolist() == [key.generator("augmentation").random(5).tolist() for key in KEYS]
    assert not np.isin(drawn, uniforms(KEYS, 50)).any()


@pytest.mark.parametrize("options", [*EACH, ALL])
def test_episodes_keep_their_classes_images_and_shape_and_each_image_changes_by_itself(
    options: dict[str, Any], photos: Path
) -> None:
    plain, changed = images(photos), images(photos, **options)
    before, after = plain.episodes(KEYS), changed.episodes(KEYS)
    for side, other in zip(before, after, strict=True):
        assert (other.x.shape, other.x.dtype) == (side.x.shape, side.x.dtype)
        assert equal_tensors(side[1:], other[1:])
    assert not torch.equal(before.support.x, after.support.x)
    x = np.concatenate([np.rint(255 * side.x.flatten(0, 1).numpy()) for side in (before.support, before.query)])
    y = np.concatenate([np.rint(255 * side.x.flatten(0, 1).numpy()) for side in (after.support, after.query)])
    if options == {"train_flip": True}:
        was_mirrored = [np.array_equal(b, a[..., ::-1]) for a, b in zip(x, y, strict=True)]
        assert all(m or np.array_equal(a, b) for m, a, b in zip(was_mirrored, x, y, strict=True))
        assert 0 < sum(was_mirrored) < len(was_mirrored)  # an example, not an episode


@pytest.mark.parametrize("options", [*EACH, ALL])
def test_the_same_key_gives_the_same_bits_alone_or_beside_others(options: dict[str, Any], photos: Path) -> None:
    tasks, again = images(photos, **options), images(photos, **options)
    batch = tasks.episodes(KEYS)
    for t, key in enumerate(KEYS):
        alone = again.episode(key)
        assert equal_tensors([side.x for side in alone], [side.x[t] for side in batch])
    assert not equal(tasks.episode(KEYS[0]), tasks.episode(KEYS[0]._replace(seed=4)))


def test_validation_and_test_see_the_images_as_they_are(photos: Path) -> None:
    plain, changed = images(photos), images(photos, **ALL)
    for split in ("val", "test"):
        key = TaskKey(0, split, 0, 5)  # type: ignore[arg-type]
        assert equal(plain.episode(key), changed.episode(key))
        assert plain.drawn_from(split) == changed.drawn_from(split)  # type: ignore[arg-type]
    assert plain.drawn_from("train") != changed.drawn_from("train")


def test_one_option_does_not_change_what_another_one_draws(photos: Path) -> None:
    mirrored_, both = images(photos, train_flip=True), images(photos, train_flip=True, train_crop=1)
    inside = (..., slice(1, -1), slice(1, -1))
    one, two = mirrored_.episodes(KEYS).support.x.flatten(0, 1), both.episodes(KEYS).support.x.flatten(0, 1)
    moves = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1)]
    for a, b in zip(one, two, strict=True):
        assert any(torch.equal(b[inside], a.roll(move, (1, 2))[inside]) for move in moves)


def test_images_are_read_once_whatever_is_done_to_them(photos: Path) -> None:
    assert images(photos).splits["train"].images is images(photos, **ALL).splits["train"].images
    assert images(photos).manifest(SPLITS) == images(photos, **ALL).manifest(SPLITS)


def test_colour_of_greys_and_crops_beyond_the_side_are_refused_with_the_reason(tmp_path: Path, photos: Path) -> None:
    greys = folder(tmp_path, classes=10, size=(20, 20), mode="L")
    with pytest.raises(DataError, match=r"train_colour 0\.4 .* 1 channel: leave it out, or .* tasks\.channels 3"):
        images(greys, train_colour=0.4).check()
    images(greys, train_colour=0.4, channels=3).check()
    with pytest.raises(ValueError, match="channels is 1"):
        images(photos, train_colour=0.4, channels=1)
    with pytest.raises(DataError, match=r"train_crop 20 .* side of 20 pixels"):
        images(photos, train_crop=20).check()


@pytest.mark.slow
def test_augmented_training_has_equal_bits_on_workers_and_after_resume(photos: Path, tmp_path: Path) -> None:
    require_equal_bits(
        tmp_path,
        algorithm="protonet",
        model="conv4",
        tasks="images",
        **{"tasks.root": str(photos), "model.width": 4, **{f"tasks.{k}": v for k, v in {**FEW, **ALL}.items()}},
    )
